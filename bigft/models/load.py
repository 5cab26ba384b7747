"""Tokenizer and model from a directory or a hub, checked against each other before any training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bigft.config.errors import BadInput, Problem
from bigft.config.sections import ModelConfig

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


def load_tokenizer(model: ModelConfig) -> PreTrainedTokenizerBase:
    """The run's tokenizer: a fast one, with a pad token, that takes words as well as text.

    Raises BadInput, naming the key, if it cannot be found or used.
    """
    from transformers import AutoTokenizer

    name = model.tokenizer_name or model.model_name_or_path
    key = "model.tokenizer_name" if model.tokenizer_name else "model.model_name_or_path"
    try:
        # add_prefix_space: byte-level tokenizers need it to take sentences that come as words.
        tokenizer = AutoTokenizer.from_pretrained(
            name, revision=model.revision, add_prefix_space=True, trust_remote_code=False
        )
    except (OSError, ValueError) as error:
        raise _not_loaded(key, name, error) from error
    problems = []
    if not tokenizer.is_fast:
        problems.append(
            Problem(
                key,
                f"{name} has only a slow tokenizer, which cannot tell words from tokens",
                "set model.tokenizer_name to one with a tokenizer.json",
            )
        )
    if tokenizer.pad_token_id is None:
        problems.append(
            Problem(
                key,
                f"the tokenizer of {name} has no pad token",
                'add "pad_token" to its tokenizer_config.json or name another one in '
                "model.tokenizer_name",
            )
        )
    if problems:
        raise BadInput(problems)
    return tokenizer


def load_model_config(model: ModelConfig, **options: Any) -> PretrainedConfig:
    """The architecture's config with bigft's overrides; no weights are read.

    options: what the task adds (num_labels, id2label, ...).
    Raises BadInput, naming the key, if there is none or an override does not exist.
    """
    from transformers import AutoConfig

    name = model.model_name_or_path
    try:
        config = AutoConfig.from_pretrained(
            name, revision=model.revision, trust_remote_code=False, **options
        )
    except (OSError, ValueError) as error:
        raise _not_loaded("model.model_name_or_path", name, error) from error
    for field, value in model.config_overrides.items():
        if not hasattr(config, field):
            raise BadInput(
                Problem(
                    f"model.config_overrides.{field}",
                    f"{type(config).__name__} has no such field",
                    f"`python -c` of transformers' {type(config).__name__} lists its fields",
                )
            )
        setattr(config, field, value)
    if model.dropout is not None:
        for field, value in config.to_dict().items():
            if "drop" in field and isinstance(value, (int, float)) and not isinstance(value, bool):
                setattr(config, field, model.dropout)
    return config


def check_vocabulary(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> None:
    """Raises BadInput if a token id of the tokenizer has no row in the model's embedding."""
    rows = getattr(config.get_text_config(), "vocab_size", None)
    if rows is not None and len(tokenizer) > rows:
        raise BadInput(
            Problem(
                "model.tokenizer_name",
                f"the tokenizer has {len(tokenizer)} tokens, the model's embedding {rows} rows",
                "use the model's own tokenizer",
            )
        )


def max_positions(tokenizer: PreTrainedTokenizerBase, config: PretrainedConfig) -> int | None:
    """The longest sequence, in tokens, that model and tokenizer take; None where neither says."""
    text = config.get_text_config()
    limits = [getattr(text, "max_position_embeddings", None), tokenizer.model_max_length]
    known = [limit for limit in limits if limit is not None and 0 < limit < 10**9]
    return min(known) if known else None


def load_model(
    model: ModelConfig, config: PretrainedConfig, auto_class: str, dtype: str = "float32"
) -> PreTrainedModel:
    """The model on the CPU; `from_scratch` gives random weights of the global seed.

    A head made for other labels is replaced by a new one, as a missing head is.

    auto_class: the name of transformers' Auto class of the task.  dtype: "auto" is the file's.
    Raises BadInput if the weights cannot be read or do not fit the body of the architecture.
    """
    import transformers

    factory = getattr(transformers, auto_class)
    extra = {}
    if model.attn_implementation is not None:
        extra["attn_implementation"] = model.attn_implementation
    if model.from_scratch:
        return factory.from_config(config, **extra).float()
    name = model.model_name_or_path
    transformers.utils.logging.disable_progress_bar()
    verbosity = transformers.utils.logging.get_verbosity()
    transformers.utils.logging.set_verbosity_error()  # a new head is no news: the task says so
    try:
        loaded, info = factory.from_pretrained(
            name,
            config=config,
            revision=model.revision,
            trust_remote_code=False,
            use_safetensors=True,
            dtype=dtype,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **extra,
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise _not_loaded("model.model_name_or_path", name, error) from error
    finally:
        transformers.utils.logging.set_verbosity(verbosity)
    body = f"{loaded.base_model_prefix}."
    wrong = [key for key, *_ in info["mismatched_keys"] if key.startswith(body)]
    wrong += [key for key in info["missing_keys"] if key.startswith(body)]
    if wrong:
        raise BadInput(
            Problem(
                "model.model_name_or_path",
                f"the weights of {name!r} do not fit its config: {', '.join(sorted(wrong)[:3])}",
                "give the config.json that belongs to the weights, or set model.from_scratch",
            )
        )
    return loaded


def _not_loaded(key: str, name: str, error: Exception) -> BadInput:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return BadInput(
        Problem(
            key,
            f"{name!r} cannot be loaded ({reason})",
            "give a directory with config.json, tokenizer.json and model.safetensors, or a hub id "
            "(HF_HUB_OFFLINE=1 takes only what is in the cache)",
        )
    )
