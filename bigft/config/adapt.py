"""The options of each way to adapt a model, told apart by `method`; names are peft's."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from bigft.config.fields import Count, Fraction, Modules, Section, Texts, names


class Full(Section):
    """Every parameter is trained."""

    method: Literal["full"] = "full"
    """The way to adapt."""


class Head(Section):
    """Only the head is trained."""

    method: Literal["head"] = "head"
    """The way to adapt."""


class Freeze(Section):
    """A part of the model stays as it is."""

    method: Literal["freeze"] = "freeze"
    """The way to adapt."""
    freeze_embeddings: bool = True
    """Freeze the embeddings."""
    freeze_layers: Annotated[int, Field(ge=0)] = 0
    """Freeze the first so many layers."""
    freeze_patterns: Texts = ()
    """Freeze parameters whose name matches one of these regular expressions."""


class _LowRank(Section):
    r: Count = 8
    """Rank of the update."""
    lora_alpha: Count = 8
    """The update is scaled by lora_alpha / r."""
    lora_dropout: Fraction = 0.0
    """Dropout before the update."""
    target_modules: Modules = "all-linear"
    """Modules that get an update: names, one regular expression, or all-linear."""
    modules_to_save: Texts = ()
    """Modules that are trained and saved in full beside the adapter."""


class Lora(_LowRank):
    """Low-rank updates of linear modules."""

    method: Literal["lora"] = "lora"
    """The way to adapt."""
    use_dora: bool = False
    """Magnitude and direction apart, as method dora."""
    use_rslora: bool = False
    """Scale by lora_alpha / sqrt(r) instead."""


class Dora(_LowRank):
    """Low-rank updates with magnitude and direction apart."""

    method: Literal["dora"] = "dora"
    """The way to adapt."""


class Qlora(_LowRank):
    """Low-rank updates over a base in 4-bit NormalFloat."""

    method: Literal["qlora"] = "qlora"
    """The way to adapt."""
    use_dora: bool = False
    """Magnitude and direction apart, as method dora."""
    bnb_4bit_use_double_quant: bool = True
    """Quantise the scales too."""


class Ia3(Section):
    """Learned factors on keys, values and the feed-forward layers."""

    method: Literal["ia3"] = "ia3"
    """The way to adapt."""
    target_modules: Modules | None = None
    """Modules that get factors; null: peft's choice for the architecture."""
    feedforward_modules: Modules | None = None
    """Those of them that belong to the feed-forward layers."""
    modules_to_save: Texts = ()
    """Modules that are trained and saved in full beside the adapter."""


class _Virtual(Section):
    num_virtual_tokens: Count = 20
    """Trained vectors put before the input."""
    modules_to_save: Texts = ()
    """Modules that are trained and saved in full beside the adapter."""


class Prompt(_Virtual):
    """Trained vectors before the input's embeddings."""

    method: Literal["prompt"] = "prompt"
    """The way to adapt."""
    prompt_tuning_init_text: Annotated[str, Field(min_length=1)] | None = None
    """Text whose embeddings the vectors start from; null: random."""


class Prefix(_Virtual):
    """Trained keys and values before every layer's."""

    method: Literal["prefix"] = "prefix"
    """The way to adapt."""
    prefix_projection: bool = False
    """Compute them by a small network while training."""


class PTuning(_Virtual):
    """Trained vectors computed by a small encoder."""

    method: Literal["p-tuning"] = "p-tuning"
    """The way to adapt."""
    encoder_hidden_size: Count | None = None
    """Width of the encoder; null: the model's."""


class Bottleneck(Section):
    """Small trained networks inside every layer."""

    method: Literal["bottleneck"] = "bottleneck"
    """The way to adapt."""
    reduction_factor: Count = 16
    """The layer's width divided by the bottleneck's."""
    modules_to_save: Texts = ()
    """Modules that are trained and saved in full beside the adapter."""


_Options = Annotated[
    Full | Head | Freeze | Lora | Dora | Qlora | Ia3 | Prompt | Prefix | PTuning | Bottleneck,
    Field(discriminator="method"),
]
METHOD_NAMES = names(_Options, "method")


def _full_by_default(value: Any) -> Any:
    return {"method": "full", **value} if isinstance(value, dict) else value


AdaptConfig = Annotated[
    _Options, BeforeValidator(_full_by_default, json_schema_input_type=_Options)
]
