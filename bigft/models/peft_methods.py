"""The methods of peft: its configs from `config.adapt`, and what peft would let pass in silence."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from bigft.config.errors import BadInput, Problem, reason
from bigft.config.fields import wherever_read
from bigft.models.layers import head_modules

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

ALL_LINEAR = "all-linear"


def lora(model: PreTrainedModel, options: Any, tokenizer: Any) -> PeftModel:
    """LoRA, DoRA (`use_dora`) and QLoRA, whose base came in 4 bits."""
    from peft import LoraConfig

    config = LoraConfig(
        **_common(model, options),
        r=options.r,
        lora_alpha=options.lora_alpha,
        lora_dropout=options.lora_dropout,
        target_modules=_targets(model, options.target_modules, "target_modules"),
        exclude_modules=_inside_of(model, head_modules(model)),
        use_dora=options.method == "dora" or options.use_dora,
        use_rslora=getattr(options, "use_rslora", False),
    )
    return _wrap(model, config, "adapt.target_modules")


def ia3(model: PreTrainedModel, options: Any, tokenizer: Any) -> PeftModel:
    """Factors on the outputs of target_modules, and on the inputs of feedforward_modules."""
    from peft import IA3Config
    from peft.utils import TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING as KNOWN

    kind = model.config.model_type
    if options.target_modules is None and kind not in KNOWN:
        what = f"not given, and peft has no choice of its own for {kind}"
        raise BadInput(Problem("adapt.target_modules", what, "name keys, values and feed-forward"))
    try:
        config = IA3Config(
            **_common(model, options),
            target_modules=_targets(model, options.target_modules, "target_modules"),
            feedforward_modules=_targets(model, options.feedforward_modules, "feedforward_modules"),
            exclude_modules=_inside_of(model, head_modules(model)),
        )
    except ValueError as error:
        raise BadInput(Problem("adapt.feedforward_modules", reason(error))) from error
    return _wrap(model, config, "adapt.target_modules")


def prompt(model: PreTrainedModel, options: Any, tokenizer: PreTrainedTokenizerBase) -> PeftModel:
    """Virtual tokens in front of the input's embeddings."""
    from peft import PromptTuningConfig

    text = options.prompt_tuning_init_text
    config = PromptTuningConfig(
        **_common(model, options),
        **_virtual(model, options),
        prompt_tuning_init="RANDOM" if text is None else "TEXT",
        prompt_tuning_init_text=text,
        tokenizer_name_or_path=None if text is None else wherever_read(tokenizer.name_or_path),
    )
    return _wrap(model, config, "adapt.method")


def p_tuning(model: PreTrainedModel, options: Any, tokenizer: Any) -> PeftModel:
    """Virtual tokens that a small encoder computes while training."""
    from peft import PromptEncoderConfig

    config = PromptEncoderConfig(
        **_common(model, options),
        **_virtual(model, options),
        encoder_hidden_size=options.encoder_hidden_size,
    )
    return _wrap(model, config, "adapt.method")


def prefix(model: PreTrainedModel, options: Any, tokenizer: Any) -> PeftModel:
    """Keys and values in front of every layer's."""
    from peft import PrefixTuningConfig

    text: Any = model.config.get_text_config()
    heads, width = text.num_attention_heads, text.hidden_size
    if width % heads and getattr(text, "head_dim", None) is None:
        what = (
            f"prefix, but peft parts the width of {width} among {heads} heads, which leaves a rest"
        )
        raise BadInput(Problem("adapt.method", what, "choose prompt, p-tuning or lora"))
    config = PrefixTuningConfig(
        **_common(model, options),
        num_virtual_tokens=options.num_virtual_tokens,
        prefix_projection=options.prefix_projection,
    )
    return _wrap(model, config, "adapt.method")


# -- what the methods share -----------------------------------------------------------------------


def _common(model: PreTrainedModel, options: Any) -> dict[str, Any]:
    """A new head is trained and saved in full: nobody could find its random weights again."""
    _check_modules_to_save(model, options.modules_to_save)
    return {
        "task_type": task_type(model),
        "base_model_name_or_path": model.config.name_or_path or None,
        "revision": getattr(model.config, "_commit_hash", None),
        "modules_to_save": [*options.modules_to_save, *head_modules(model)] or None,
    }


def task_type(model: PreTrainedModel) -> str:
    """peft's name of what the model's class is for."""
    from transformers.models.auto import modeling_auto

    known = {
        "TOKEN_CLS": ["TOKEN_CLASSIFICATION"],
        "SEQ_CLS": ["SEQUENCE_CLASSIFICATION"],
        "QUESTION_ANS": ["QUESTION_ANSWERING"],
        "CAUSAL_LM": ["CAUSAL_LM"],
        "SEQ_2_SEQ_LM": ["SEQ_TO_SEQ_CAUSAL_LM"],
        # Its word for an encoder whose output is taken as it is: it has none for masked tokens.
        "FEATURE_EXTRACTION": ["MASKED_LM", "PRETRAINING"],
    }
    name = type(model).__name__
    (found, *_) = [
        task
        for task, kinds in known.items()
        for kind in kinds
        if name in getattr(modeling_auto, f"MODEL_FOR_{kind}_MAPPING_NAMES").values()
    ]
    return found


def _virtual(model: PreTrainedModel, options: Any) -> dict[str, Any]:
    """Widths that peft guesses, and not for every architecture."""
    embeddings: Any = model.get_input_embeddings()
    config = model.config.get_text_config()
    return {
        "num_virtual_tokens": options.num_virtual_tokens,
        "token_dim": embeddings.embedding_dim,
        "num_attention_heads": config.num_attention_heads,
        "num_layers": config.num_hidden_layers,
        # Of an encoder and a decoder the encoder reads them: targets stay where they are.
        "num_transformer_submodules": 1,
    }


def _wrap(model: PreTrainedModel, config: PeftConfig, key: str) -> PeftModel:
    """peft's model; its own refusals as BadInput, and what saving would lose refused too."""
    from peft import get_peft_model, get_peft_model_state_dict

    try:
        adapted: Any = get_peft_model(model, config)
    except (ValueError, TypeError, KeyError) as error:
        raise BadInput(Problem(key, reason(error))) from error
    if base := config.base_model_name_or_path:  # as it was loaded, maybe relative
        config.base_model_name_or_path = wherever_read(base)
    if not config.is_prompt_learning:
        state = adapted.state_dict(keep_vars=True)
        saved = get_peft_model_state_dict(adapted, state_dict=state, save_embedding_layers=False)
        kept = {id(tensor) for tensor in saved.values()}
        for name, parameter in adapted.named_parameters():
            if parameter.requires_grad and id(parameter) not in kept:
                what = f"{name} would be trained, but the adapter does not hold it"
                raise BadInput(Problem(key, what))
    return adapted


# -- what peft would let pass ---------------------------------------------------------------------


def _targets(model: PreTrainedModel, asked: Any, key: str) -> Any:
    """As peft takes them. Raises BadInput for each that matches no module, or a tied one."""
    if asked is None or asked == ALL_LINEAR:
        return asked
    if tuple(asked) == (ALL_LINEAR,):
        return ALL_LINEAR
    key = f"adapt.{key}"
    names = [name for name, _ in model.named_modules() if name]
    if isinstance(asked, str):
        matched = _matching(asked, names, key)
        entries = {asked: matched}
    else:
        entries = {entry: _ending_with(entry, names) for entry in asked}
    problems = [
        Problem(key, f"{entry!r} matches no module", _nearest(entry, names, isinstance(asked, str)))
        for entry, matched in entries.items()
        if not matched
    ]
    of_head = set(_inside_of(model, head_modules(model)))
    tied = _tied(model)
    for entry, matched in entries.items():
        if matched and of_head.issuperset(matched):
            what = f"{entry!r} is the new head, which is trained in full anyway"
            problems.append(Problem(key, what, "leave it out"))
        if shared := next((name for name in matched if name in tied), None):
            problems.append(_of_tied(key, shared, tied[shared]))
    if problems:
        raise BadInput(problems)
    return asked if isinstance(asked, str) else list(asked)


def _check_modules_to_save(model: PreTrainedModel, asked: Sequence[str]) -> None:
    names = [name for name, _ in model.named_modules() if name]
    problems = []
    tied = _tied(model)
    for entry in asked:
        matched = _ending_with(entry, names)
        if not matched:
            what = f"{entry!r} matches no module"
            problems.append(Problem("adapt.modules_to_save", what, _nearest(entry, names)))
        elif shared := next((name for name in matched if name in tied), None):
            problems.append(_of_tied("adapt.modules_to_save", shared, tied[shared]))
    if problems:
        raise BadInput(problems)


def _matching(pattern: str, names: Sequence[str], key: str) -> list[str]:
    try:
        return [name for name in names if re.fullmatch(pattern, name)]
    except re.error as error:
        what = f"{pattern!r} is no regular expression ({error})"
        raise BadInput(Problem(key, what)) from error


def _ending_with(entry: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if name == entry or name.endswith(f".{entry}")]


def _nearest(entry: str, names: Sequence[str], is_pattern: bool = False) -> str:
    leaves = {name.rpartition(".")[2]: name for name in reversed(names)}  # its first module
    nearest = get_close_matches(entry, [leaf for leaf in leaves if not leaf.isdigit()], n=1)
    example = leaves[nearest[0]] if nearest else max(names, key=len)
    if is_pattern:
        return f"one text is a regular expression for whole names, as {example}; or give a list"
    return f"did you mean {nearest[0]}?" if nearest else f"names are like {example}"


def _inside_of(model: PreTrainedModel, modules: Sequence[str]) -> list[str]:
    """The modules themselves and all below them."""
    return [
        name
        for name, _ in model.named_modules()
        if any(name == module or name.startswith(f"{module}.") for module in modules)
    ]


def _tied(model: PreTrainedModel) -> dict[str, list[str]]:
    """Of each module whose weight is that of others too, as embeddings and head, these others."""
    holders: dict[int, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        weight = module._parameters.get("weight")
        if weight is not None:
            holders.setdefault(id(weight), []).append(name)
    return {
        name: [other for other in names if other != name]
        for names in holders.values()
        if len(names) > 1
        for name in names
    }


def _of_tied(key: str, name: str, others: list[str]) -> Problem:
    what = f"{name} shares its weight with {', '.join(others)}: "
    what += "an adapter would change one of them only"
    return Problem(key, what, "leave it out, or train with adapt.method full")
