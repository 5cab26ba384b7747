"""A classifier's head begins with the rows that its files hold for the same label names."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from bigft.models.layers import head_modules

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Rows = Sequence[int | None]
"""Of every label of a model, by id, its row in the stored head; None: it has none."""


def labels_by_id(config: Any) -> list[str]:
    """The label names of a config, in the order of their ids."""
    names: Mapping[int, str] = config.id2label or {}
    return [names[index] for index in sorted(names)]


def label_layer(model: PreTrainedModel) -> tuple[str, nn.Linear] | None:
    """Name and module of the layer that has a row for every label: transformers puts it last."""
    layers = [
        (f"{head}.{name}" if name else head, module)
        for head in head_modules(model)
        for name, module in model.get_submodule(head).named_modules()
        if isinstance(module, nn.Linear)
    ]
    return layers[-1] if layers else None


def label_parameters(model: PreTrainedModel) -> dict[str, nn.Parameter]:
    """The parameters of `label_layer` by their names in the model."""
    found = label_layer(model)
    if found is None:
        return {}
    name, layer = found
    return {f"{name}.{leaf}": parameter for leaf, parameter in layer.named_parameters()}


@torch.no_grad()
def draw_anew(model: PreTrainedModel) -> None:
    """Gives the layer of the labels initial values, as transformers gives a missing head."""
    found = label_layer(model)
    assert found is not None
    module: Any
    for module in (found[1], *found[1].parameters()):
        module._is_hf_initialized = False  # transformers' mark: its initialisers pass over others
    model._init_weights(found[1])


@torch.no_grad()
def take_rows(
    model: PreTrainedModel, rows: Rows, stored: Mapping[str, Callable[[], torch.Tensor]]
) -> None:
    """Copies the stored rows to the labels that have one.

    stored: by the names of `label_parameters`, what reads the stored tensor.
    """
    pairs = [(label, row) for label, row in enumerate(rows) if row is not None]
    own, theirs = [label for label, _ in pairs], [row for _, row in pairs]
    for name, parameter in label_parameters(model).items():
        parameter[own] = stored[name]()[theirs].to(parameter)
