"""`model.fused_head`: whether the operator or the model's own last layer answers, and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from typing import Any, Literal, NamedTuple

import torch
from torch import nn

from bigft.config.errors import BadInput, Problem
from bigft.models.heads.swap import CannotFuse, FusedHead, head_of, trying_out
from bigft.ops import native
from bigft.runtime.process_group import World

# Logits of a new model are small, and what is done to large ones (a softcap) would not show.
AMPLIFICATION = 16.0
# Relative, as seen between two orders of summing, times ten or more.
LOSS_TOLERANCE = 1e-5
GRADIENT_TOLERANCE = 1e-4  # of the largest element
# Of weights that are there in 16 bits only. Another formula for the logits differs by far more.
HALF_LOSS_TOLERANCE = 1e-2
HALF_GRADIENT_TOLERANCE = 1e-1


class HeadChoice(NamedTuple):
    """fused: what answers.  reason: why; str() is a sentence for the log."""

    fused: bool
    reason: str

    def __str__(self) -> str:
        return f"model.fused_head: {'fused' if self.fused else 'stock'} head, because {self.reason}"


def choose_head(
    model: nn.Module,
    inputs: Mapping[str, torch.Tensor],
    labels_BT: torch.Tensor,
    requested: Literal["auto"] | bool,
    world: World,
    dtype: torch.dtype = torch.float32,
    sharded: bool = False,
) -> HeadChoice:
    """Sets `fused` of the model's attached head and says why. Collective; the same on every rank.

    "auto": fused where its operator is built for the device and both heads agree on this
    batch, in the loss and in the gradients of the head and of the first trained parameters;
    dropout is off for it. Leaves no gradient, no mode and no random state changed.

    model: on the device of the batch, before an engine shards it; what is not trained may be in
        16 bits.
    inputs, labels_BT: a few short rows, the same on every rank.  dtype: training computes in it.
    sharded: the model is an engine's under ZeRO-3: only the losses are compared, since a gradient
        would end in the engine's sums.
    Raises BadInput where the fused head is asked for (True) and cannot be had.
    """
    head, device = head_of(model), labels_BT.device
    if not isinstance(head, FusedHead):
        if requested is True:
            fix = "set auto or false"
            raise BadInput(Problem("model.fused_head", "it is true, but this task has none", fix))
        return HeadChoice(False, "this task has no other")
    head.fused = False
    if requested is False:
        return HeadChoice(False, "it is false")
    reason, built = "", native.is_built(head.operator, device)
    if requested is True or built:
        reason = _difference(model, head, inputs, labels_BT, dtype, sharded)
    else:
        reason = f"{head.operator} is not built for {device.type}"
        reason += f": {native.WHY_NOT}" if native.WHY_NOT else ""
    (fitting,) = world.sum([float(not reason)])
    if fitting == world.size:
        head.fused = True
        slow = "" if built else f", in plain torch: {head.operator} is not built for {device.type}"
        return HeadChoice(True, f"its loss and gradients are the stock head's{slow}")
    reason = reason or "it does not fit on another rank"
    if requested is True:
        raise BadInput(
            Problem("model.fused_head", f"it is true, but {reason}", "set auto or false")
        )
    head.fused = False
    return HeadChoice(False, reason)


def _difference(
    model: nn.Module,
    head: FusedHead,
    inputs: Mapping[str, torch.Tensor],
    labels_BT: torch.Tensor,
    dtype: torch.dtype,
    sharded: bool,
) -> str:
    """How the fused head's answer is another than the stock one's, or why it has none; "": it is
    the same."""
    # Flash attention computes in 16 bits only.
    flash = "flash" in (getattr(head.model.config, "_attn_implementation", None) or "")
    half = torch.autocast(labels_BT.device.type, dtype=dtype, enabled=flash)
    try:
        with _probing(model, head), half:
            head.fused = False
            stock = _loss_and_gradients(model, head, inputs, labels_BT, sharded)
            head.fused = True
            fused = _fused_or_refused(model, head, inputs, labels_BT, dtype, sharded)
    except CannotFuse as reason:
        return str(reason)
    exact = head.linear.weight.dtype == torch.float32 and not flash
    of_loss = LOSS_TOLERANCE if exact else HALF_LOSS_TOLERANCE
    of_gradients = GRADIENT_TOLERANCE if exact else HALF_GRADIENT_TOLERANCE
    for name, expected in stock.items():
        error = (fused[name] - expected).abs().max() / expected.abs().max().clamp_min(1e-30)
        if not error <= (of_loss if name == "loss" else of_gradients):
            what = "the loss" if name == "loss" else f"the gradient of {name}"
            return f"{what} differs from the stock head's by {error:.1e} (relative)"
    return ""


def _fused_or_refused(
    model: nn.Module,
    head: FusedHead,
    inputs: Mapping[str, torch.Tensor],
    labels_BT: torch.Tensor,
    dtype: torch.dtype,
    sharded: bool,
) -> dict[str, torch.Tensor]:
    try:
        answer = _loss_and_gradients(model, head, inputs, labels_BT, sharded)
        if dtype != torch.float32:  # too coarse to compare, but it must run
            with torch.autocast(labels_BT.device.type, dtype=dtype):
                model(labels_BT=labels_BT, **inputs)
    except Exception as error:  # of every kind: the stock head has just answered the same batch
        raise CannotFuse(next(iter(str(error).splitlines()), type(error).__name__)) from error
    return answer


def _loss_and_gradients(
    model: nn.Module,
    head: FusedHead,
    inputs: Mapping[str, torch.Tensor],
    labels_BT: torch.Tensor,
    sharded: bool,
) -> dict[str, torch.Tensor]:
    """By name: the loss sum, gradients of the head's parameters and of the first two trained."""
    of_head = {id(parameter) for parameter in head.linear.parameters()}
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    # Two, because the first of LoRA's pairs has no gradient as long as the second one is zero.
    wanted = dict(islice(trained.items(), 2))
    wanted |= {name: p for name, p in trained.items() if id(p) in of_head}
    output: Any = model(labels_BT=labels_BT, **inputs)
    if sharded:
        return {"loss": output.loss_sum}
    gradients = torch.autograd.grad(output.loss, list(wanted.values()), materialize_grads=True)
    return {"loss": output.loss_sum, **dict(zip(wanted, gradients, strict=True))}


@contextmanager
def _probing(model: nn.Module, head: FusedHead) -> Iterator[None]:
    """`trying_out`, with amplified logits."""
    hook = head.entrance.register_forward_pre_hook(
        lambda module, args: (args[0] * AMPLIFICATION, *args[1:])
    )
    try:
        with trying_out(model):
            yield
    finally:
        hook.remove()
