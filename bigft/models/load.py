"""Tokenizer and model from a directory or a hub, checked against each other before any training."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, NamedTuple

from bigft.config.errors import BadInput, Problem, reason
from bigft.config.sections import ModelConfig
from bigft.config.tasks import Reads
from bigft.models.files import readers, weight_files
from bigft.models.heads.labels import draw_anew, label_parameters, take_rows
from bigft.models.layers import head_modules
from bigft.models.refusals import incomplete, not_loaded, weights_not_loaded
from bigft.models.weights import check_fit

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

BYTE_LEVEL_SPACE = "\u0120"  # how byte-level vocabularies write the space
# Architectures after fairseq's RoBERTa: the first token's position is pad_token_id + 1.
POSITIONS_AFTER_PAD = {
    *("roberta", "roberta-prelayernorm", "camembert", "xlm-roberta", "xlm-roberta-xl"),
    *("data2vec-text", "longformer", "mpnet", "luke", "xmod", "ibert", "layoutlmv3"),
}


class Needs(NamedTuple):
    """tokens: that the tokenizer must have.  words: each word comes with its space, and the
    tokenizer is a fast one, which can tell what became of a word."""

    tokens: tuple[str, ...]
    words: bool = False


# By what a task's model is given (`reads` in bigft/config/tasks.py). Running text is read as the
# model was pretrained to.
NEEDS: dict[Reads, Needs] = {
    "words": Needs(("pad",), words=True),
    "text": Needs(("pad",)),
    "masked-text": Needs(("pad", "mask")),
    "completion": Needs(("pad", "eos")),
}


def load_tokenizer(model: ModelConfig, reads: Reads = "words") -> PreTrainedTokenizerBase:
    """The run's tokenizer, with the tokens that its task needs. Where running text has no pad token
    of its own, eos pads.

    Raises BadInput, naming the key, if it cannot be found or used.
    """
    from transformers import AutoTokenizer

    needs = NEEDS[reads]
    name = model.tokenizer_name or model.model_name_or_path
    key = "model.tokenizer_name" if model.tokenizer_name else "model.model_name_or_path"
    options = {"add_prefix_space": True} if needs.words else {}
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            name, revision=model.revision, trust_remote_code=False, **options
        )
    except Exception as error:  # of every kind, KeyError too, for files that are damaged
        raise not_loaded(key, name, error) from error
    problems = []
    if needs.words and not tokenizer.is_fast:
        problems.append(
            Problem(
                key,
                f"{name} has only a slow tokenizer, which cannot tell words from tokens",
                "set model.tokenizer_name to one with a tokenizer.json",
            )
        )
    if not needs.words and tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    problems += [
        Problem(
            key,
            f"the tokenizer of {name} has no {token} token",
            f'add "{token}_token" to its tokenizer_config.json or name another one in '
            "model.tokenizer_name",
        )
        for token in needs.tokens
        if getattr(tokenizer, f"{token}_token_id") is None
    ]
    if problems:
        raise BadInput(problems)
    if needs.words:
        _read_words_as_text(tokenizer)
    return tokenizer


def tokenizer_notes(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """What a user should know of a tokenizer that was loaded, one sentence each."""
    if tokenizer.pad_token_id != tokenizer.eos_token_id:
        return []
    return [f"rows are padded with the eos token {tokenizer.eos_token}: padding is no target"]


def _read_words_as_text(tokenizer: PreTrainedTokenizerBase) -> None:
    """Byte-level vocabularies spell a word with the space before it: words must come with one.

    Not every class heeds add_prefix_space, so what counts is what a lone word becomes. The change
    is part of the tokenizer and is saved with it.
    """
    from tokenizers import normalizers

    backend = tokenizer.backend_tokenizer
    (first, *_) = tokenizer(["a"], is_split_into_words=True, add_special_tokens=False).tokens()
    if "ByteLevel" in str(backend.pre_tokenizer) and not first.startswith(BYTE_LEVEL_SPACE):
        space = normalizers.Prepend(" ")
        before = backend.normalizer
        backend.normalizer = space if before is None else normalizers.Sequence([before, space])


def load_model_config(model: ModelConfig, **options: Any) -> PretrainedConfig:
    """The architecture's config with bigft's overrides; no weights are read.

    options: what the task adds (id2label, ...).
    Raises BadInput, naming the key, if there is none or an override does not exist.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    name = model.model_name_or_path
    try:
        config = AutoConfig.from_pretrained(
            name, revision=model.revision, trust_remote_code=False, **options
        )
    except (OSError, ValueError, StrictDataclassError) as error:
        raise not_loaded("model.model_name_or_path", name, error) from error
    for field, value in model.config_overrides.items():
        if not hasattr(config, field) or callable(getattr(config, field)):
            nearest = get_close_matches(field, config.to_dict(), n=1)
            raise BadInput(
                Problem(
                    "model.config_overrides",
                    f"{type(config).__name__} has no field {field!r}",
                    f"did you mean {nearest[0]}?" if nearest else "see the model's config.json",
                )
            )
        try:
            setattr(config, field, value)
        except StrictDataclassError as error:
            why = str(error.__cause__ or error)
            raise BadInput(Problem("model.config_overrides", why)) from error
    if model.dropout is not None:
        for field, value in config.to_dict().items():
            # LayerDrop is none: it leaves whole layers out.
            is_dropout = "drop" in field and "layerdrop" not in field
            if is_dropout and isinstance(value, (int, float)) and not isinstance(value, bool):
                setattr(config, field, model.dropout)
    return config


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> None:
    """Raises BadInput if a token id of the tokenizer has no row in the model's embedding."""
    rows = getattr(config.get_text_config(), "vocab_size", None)
    if rows is None:
        return
    token, highest = max(tokenizer.get_vocab().items(), key=lambda each: each[1])
    if highest >= rows:  # ids may have holes: their number says nothing
        raise BadInput(
            Problem(
                "model.tokenizer_name",
                f"the tokenizer's token {token!r} has the id {highest}, the model's embedding "
                f"{rows} rows (ids up to {rows - 1})",
                "use the model's own tokenizer",
            )
        )


class Limit(NamedTuple):
    """tokens: of a row at most.  source: what says so, and what overrides it."""

    tokens: int
    source: str


def max_positions(config: PretrainedConfig, model: ModelConfig) -> Limit | None:
    """The longest sequence that the model takes; None where it does not say."""
    text = config.get_text_config()
    names = ("max_position_embeddings", "max_encoder_position_embeddings")
    name = next((name for name in names if getattr(text, name, None) is not None), None)
    if name is None:
        return None
    tokens = getattr(text, name)
    if config.model_type in POSITIONS_AFTER_PAD:
        tokens -= config.pad_token_id + 1
    spelled = text.attribute_map.get(name, name)
    if model.config_overrides.keys() & {name, spelled}:
        return Limit(tokens, f"{spelled} in model.config_overrides")
    return Limit(tokens, f"{spelled} in config.json (model.config_overrides overrides it)")


def tokenizer_limit(tokenizer: PreTrainedTokenizerBase) -> Limit | None:
    """The longest sequence that the tokenizer is meant for; None where it does not say."""
    source = "model_max_length in tokenizer_config.json (data.max_seq_length overrides it)"
    tokens = tokenizer.model_max_length
    return Limit(tokens, source) if 0 < tokens < 10**9 else None


def load_model(
    model: ModelConfig,
    config: PretrainedConfig,
    auto_class: str,
    dtype: str = "float32",
    device: str = "cpu",
    quantization_config: Any = None,
) -> PreTrainedModel:
    """The model; `from_scratch` gives random weights of the global seed.

    `fit_of` tells what its files have for it. A head that they lack is new; of a classifier's for
    other labels the rows of those it shares are kept.

    auto_class: the name of transformers' Auto class of the task.  dtype: "auto" is the file's.
    device: "meta" reads only the names and shapes of the weights.
    quantization_config: transformers', for weights that are quantised as they are read; those of
        a new head are not.
    Raises BadInput if the weights cannot be read, do not fit the architecture or are quantised;
        where they would fit without `config_overrides`, it names the overrides.
    """
    try:
        return _load(model, config, auto_class, dtype, device, quantization_config)
    except BadInput as refused:
        raise BadInput(_of_overrides(model, auto_class, refused) or refused.problems) from refused


def _load(
    model: ModelConfig,
    config: PretrainedConfig,
    auto_class: str,
    dtype: str = "float32",
    device: str = "cpu",
    quantization_config: Any = None,
) -> PreTrainedModel:
    import torch
    import transformers
    from safetensors import SafetensorError

    from bigft.models.cpu_bf16 import avoid_broken_attention, keep_4bit_weights

    _check_not_quantised(model, config)
    _check_generation_config(model, config)
    avoid_broken_attention()
    factory = getattr(transformers, auto_class)
    extra: dict[str, Any] = {}
    if model.attn_implementation is not None:
        extra["attn_implementation"] = model.attn_implementation
    name = model.model_name_or_path
    if quantization_config is not None:
        skeleton = load_model(model, config, auto_class, device="meta")
        quantization_config.llm_int8_skip_modules = head_modules(skeleton) or None
    transformers.utils.logging.disable_progress_bar()
    verbosity = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()  # a new head is no news: the task says so
    try:
        if model.from_scratch:
            with torch.device(device):
                return factory.from_config(config, **extra).float()
        loaded, info = factory.from_pretrained(
            name,
            config=config,
            revision=model.revision,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=dtype,
            device_map=device if device == "meta" else None,
            quantization_config=quantization_config,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **extra,
        )
    except ImportError as error:  # of the package that computes attention
        raise BadInput(
            Problem("model.attn_implementation", reason(error), "install it or leave the key out")
        ) from error
    except (OSError, ValueError, TypeError, RuntimeError, KeyError, SafetensorError) as error:
        built = _without_values(factory, config)
        raise weights_not_loaded(model, error, built) from error
    finally:
        transformers.utils.logging.set_verbosity(verbosity)
    if quantization_config is not None:
        keep_4bit_weights(loaded)
    is_cut = bool(model.config_overrides and info["unexpected_keys"]) and _fits(
        model, {}, auto_class
    )
    try:
        fit = check_fit(loaded, info, name, load_model_config(model), auto_class, is_cut)
    except BadInput as refused:
        problem = incomplete(loaded, name, weight_files(model))
        raise BadInput(problem or refused.problems) from refused
    loaded.bigft_fit = fit
    if fit.rows is not None and device != "meta":
        mismatched = {key for key, *_ in info["mismatched_keys"]}
        if mismatched.isdisjoint(label_parameters(loaded)):  # as many labels: not drawn yet
            draw_anew(loaded)
        take_rows(loaded, fit.rows, readers(loaded, model))
    return loaded


def _without_values(factory: Any, config: PretrainedConfig) -> PreTrainedModel | None:
    import torch

    try:
        with torch.device("meta"):
            built: PreTrainedModel = factory.from_config(config)
    except Exception:  # of every kind: what the config says may be what is wrong
        return None
    return built


def _fits(model: ModelConfig, overrides: dict[str, Any], auto_class: str) -> bool:
    """Whether the files fit their config with these overrides in the place of the section's."""
    other = model.model_copy(update={"config_overrides": overrides})
    try:
        _load(other, load_model_config(other), auto_class, device="meta")
    except BadInput:
        return False
    return True


def _of_overrides(model: ModelConfig, auto_class: str, refused: BadInput) -> list[Problem]:
    """The refusal as one of the overrides that cause it; [] where the model would be refused
    without them too."""
    overrides = model.config_overrides
    if not overrides or not _fits(model, {}, auto_class):
        return []
    alone = [name for name in overrides if not _fits(model, {name: overrides[name]}, auto_class)]
    stored = load_model_config(model.model_copy(update={"config_overrides": {}}))
    found = "; ".join(problem.what for problem in refused.problems)
    fix = "leave it out" if model.from_scratch else "leave it out, or set model.from_scratch"
    return [
        Problem(
            f"model.config_overrides.{name}",
            f"{overrides[name]!r}, where config.json says {getattr(stored, name)!r}: {found}",
            fix,
        )
        for name in alone or overrides
    ]


def _check_not_quantised(model: ModelConfig, config: PretrainedConfig) -> None:
    """Raises BadInput for a base in 4 or 8 bits: gradients need numbers, and rounding them twice
    gives other ones."""
    found = getattr(config, "quantization_config", None)
    if found is None or model.from_scratch:
        return
    options = found if isinstance(found, dict) else found.to_dict()
    raise BadInput(
        Problem(
            "model.model_name_or_path",
            f"the weights of {model.model_name_or_path!r} are quantised already "
            f"({options.get('quant_method', 'method unknown')})",
            "name the model that they were made from; adapt.method qlora quantises it to 4 bits",
        )
    )


def _check_generation_config(model: ModelConfig, config: PretrainedConfig) -> None:
    """Raises BadInput, naming the file, for a generation_config.json that says nothing that can be
    used: transformers drops some of them in silence."""
    from transformers import GenerationConfig
    from transformers.utils.hub import cached_file

    name, revision, file = model.model_name_or_path, model.revision, "generation_config.json"
    if model.from_scratch:
        return
    path = cached_file(name, file, revision=revision, _raise_exceptions_for_missing_entries=False)
    if path is None:
        return
    fix = "correct it, or delete it: it says how answers are generated, and no weight"
    try:
        found = GenerationConfig.from_pretrained(name, revision=revision or "main")
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise BadInput(Problem(path, f"cannot be read ({reason(error)})", fix)) from error
    ends = found.eos_token_id if isinstance(found.eos_token_id, list) else [found.eos_token_id]
    size = getattr(config.get_text_config(), "vocab_size", None)
    for end in ends:
        is_id = isinstance(end, int) and (size is None or 0 <= end < size)
        if end is not None and not is_id:
            what = f"its eos_token_id {end!r} is none of the model's {size} ids"
            raise BadInput(Problem(path, what, fix))
