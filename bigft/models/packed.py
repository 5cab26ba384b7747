"""`data.packing`: whether a model keeps the samples of a packed row apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn

from bigft.config.errors import BadInput, Problem
from bigft.models.heads.swap import FusedHead, base_model, head_of, trying_out
from bigft.runtime.process_group import World

# Norm-wise and relative, in fp32: seen up to 1e-6 where positions restart, from 1e-3 on where they
# do not.
TOLERANCE = 1e-4
HALF_TOLERANCE = 1e-1  # of the loss in 16 bits; the gradient is too coarse to compare
IGNORE_INDEX = -100


class Rows(Protocol):
    """What is looked at of a Batch. labels: [B, T], aligned; -100 is no target."""

    @property
    def inputs(self) -> Mapping[str, torch.Tensor]: ...

    @property
    def labels(self) -> torch.Tensor: ...


class Answer(NamedTuple):
    """To a batch of one row. gradient_TH: of its loss, by the embeddings of its tokens."""

    loss_T: torch.Tensor
    gradient_TH: torch.Tensor


def check_packing(
    model: nn.Module,
    packed: Rows,
    alone: Sequence[Rows],
    world: World,
    dtype: torch.dtype = torch.float32,
) -> None:
    """Raises BadInput if a sample answers otherwise in a packed row than alone. Collective.

    Attention that looks at position_ids keeps samples apart; a recurrent state, ALiBi, or positions
    that are counted from the begin of the row do not, and no list of architectures says which is
    which. So it is tried: the loss of a sample must have the gradient zero by the embeddings of
    every other one, in any precision, and loss and gradient must be those of the sample alone.
    Dropout is off for it; no gradient, no mode and no random state is changed.

    model: with the head of a language model attached; before or after an engine has sharded it.
    packed: one row of two or more short samples, each with a target.  alone: the same samples in
        their order, each a batch of its own, without padding.
    dtype: 16 bits where attention computes in no other (flash attention).
    """
    why = _difference(model, packed, alone, dtype)
    (failed,) = world.sum([float(bool(why))])
    if failed:
        name = type(base_model(model)).__name__
        what = f"it is true, but {name} {why or 'does not keep samples apart on another rank'}"
        raise BadInput(Problem("data.packing", what, "set it to false"))


def _difference(model: nn.Module, packed: Rows, alone: Sequence[Rows], dtype: torch.dtype) -> str:
    """What the model does wrong with packed samples; "": nothing."""
    head = head_of(model)
    assert isinstance(head, FusedHead), "only language models are packed"
    exact = dtype == head.linear.weight.dtype == torch.float32
    begin = 0
    device = next(model.parameters()).device.type
    half = torch.autocast(device, dtype=dtype, enabled=dtype != torch.float32)
    with trying_out(model), half:
        for sample in alone:
            expected = _answer(model, sample.inputs, sample.labels)
            own = slice(begin, begin + sample.labels.shape[1])
            labels_BT = torch.full_like(packed.labels, IGNORE_INDEX)
            labels_BT[:, own] = packed.labels[:, own]
            try:
                found = _answer(model, packed.inputs, labels_BT)
            except Exception as error:  # of every kind: the sample alone has just been answered
                first_line = next(iter(str(error).splitlines()), type(error).__name__)
                return f"cannot answer a packed row: {first_line}"
            if found.gradient_TH[:begin].any() or found.gradient_TH[own.stop :].any():
                return "lets the samples of a packed row see each other"
            distances = {"loss": _distance(found.loss_T[own], expected.loss_T)}
            if exact:
                gradient_TH = found.gradient_TH[own]
                distances["gradient"] = _distance(gradient_TH, expected.gradient_TH)
            for name, distance in distances.items():
                if not distance <= (TOLERANCE if exact else HALF_TOLERANCE):
                    return (
                        f"gives a sample of a packed row another {name} than alone: it differs by "
                        f"{distance:.1e} (relative)"
                    )
            begin = own.stop
    return ""


def _answer(
    model: nn.Module, inputs: Mapping[str, torch.Tensor], labels_BT: torch.Tensor
) -> Answer:
    embedded: list[torch.Tensor] = []

    def keep(module: nn.Module, args: Any, output: torch.Tensor) -> None:
        embedded.append(output.requires_grad_())

    hook = base_model(model).get_input_embeddings().register_forward_hook(keep)
    try:
        # With a cache transformers would take the row for one segment.
        output: Any = model(labels_BT=labels_BT, use_cache=False, **inputs)
    finally:
        hook.remove()
    (gradient_BTH,) = torch.autograd.grad(output.loss, embedded[:1])
    return Answer(output.loss_BT[0], gradient_BTH[0])


def _distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())
