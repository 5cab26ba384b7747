"""Ways to adapt a model: which of its parameters a run trains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class Adapter:
    """load_kwargs: for from_pretrained.  apply: (model, config.adapt) -> the model to train."""

    apply: Callable[[PreTrainedModel, Any], PreTrainedModel]
    load_kwargs: dict[str, Any] = field(default_factory=dict)


def _full(model: PreTrainedModel, options: Any) -> PreTrainedModel:
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    return model


ADAPTERS = {
    "full": Adapter(apply=_full),
}
