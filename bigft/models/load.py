"""A model and its config from a directory or a hub, checked before any training."""

from __future__ import annotations

from contextlib import suppress
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from bigft.config.errors import BadInput, Problem, reason
from bigft.config.sections import ModelConfig
from bigft.models.files import quantised_tensor, readers, weight_files
from bigft.models.heads.labels import draw_anew, label_parameters, take_rows
from bigft.models.layers import head_modules
from bigft.models.refusals import (
    check_is_there,
    check_is_whole,
    incomplete,
    not_loaded,
    weights_not_loaded,
)
from bigft.models.weights import check_fit
from bigft.runtime.pointers import pointer_in

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel


def load_model_config(model: ModelConfig, **options: Any) -> PretrainedConfig:
    """The architecture's config with bigft's overrides; no weights are read.

    options: what the task adds (id2label, ...).
    Raises BadInput, naming the key, if there is none or an override does not exist.
    """
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoConfig

    name = model.model_name_or_path
    check_is_there("model.model_name_or_path", name)
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

    check_is_whole(model)
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
    from safetensors import SafetensorError

    found = getattr(config, "quantization_config", None)
    if model.from_scratch:
        return
    if found is not None:
        options = found if isinstance(found, dict) else found.to_dict()
        how = options.get("quant_method", "method unknown")
    else:
        with suppress(OSError, ValueError, AssertionError, KeyError, SafetensorError):
            found = quantised_tensor(weight_files(model))  # what cannot be read is refused later
        if found is None:
            return
        how = "{} is stored as {}".format(*found)
    raise BadInput(
        Problem(
            "model.model_name_or_path",
            f"the weights of {model.model_name_or_path!r} are quantised already ({how})",
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
    if pointer := pointer_in(path):
        what = f"a {pointer.tool} pointer: it stands in the place of the file"
        raise BadInput(Problem(path, what, f"fetch it (git {pointer.fetch})"))
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
