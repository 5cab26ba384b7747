"""masked_cross_entropy: cross-entropy of given logits, its gradient in the same visit of a row."""

from __future__ import annotations

from typing import Any

import torch

from bigft.ops import native, reference
from bigft.ops.arguments import check_backward, check_call, scaled, wants_grad
from bigft.ops.checks import check_logits
from bigft.ops.outputs import CrossEntropy

NAME = "masked_cross_entropy"


def masked_cross_entropy(
    logits_NV: torch.Tensor,
    labels_N: torch.Tensor,
    *,
    row_weight_N: torch.Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float = 0.0,
    scale: float = 1.0,
    reduction: str = "sum",
    inplace: bool = False,
) -> CrossEntropy:
    """The cross-entropy of each row with a target, in nats, and scale times their sum.

    With x = softcap * tanh(logits / softcap) (or logits), lse = logsumexp(x), label y, smoothing e
    and z_loss z: loss = (1 - e) (lse - x_y) + e (lse - mean(x)) + z lse^2, times row_weight.

    Args:
        logits_NV: fp32, bf16, fp16 or fp64; any row stride. Computed in fp32 (fp64 in fp64).
        labels_N: int64 or int32, in [0, V); ignore_index masks a row, which then is never read.
        row_weight_N: fp32, a constant.
        label_smoothing: in [0, 1).  z_loss: >= 0.  softcap: 0 is none.
        scale: multiplies the sum and its gradient; known beforehand, it costs nothing.
        reduction: "sum" computes the gradient with the loss, for one backward. "none" gives a
            differentiable loss_N and computes the gradient in the backward.
        inplace: the gradient overwrites logits_NV; only with "sum", and not in fp16.

    Returns: CrossEntropy. Does not sync the host. Once differentiable, in reverse mode only:
        torch takes the forward-mode derivative of a library's operator for zero.

    Raises: TypeError for a dtype, ValueError for a shape, device or option, IndexError for a label
    out of range (on CUDA: a NaN loss, and native.check_labels raises), RuntimeError for a second
    backward with "sum". Derivation: docs/numerics.md.
    """
    check_call(reduction, scale, row_weight_N, logits_NV=logits_NV, labels_N=labels_N)
    if inplace and reduction != "sum":
        raise ValueError(f'inplace needs reduction "sum", not {reduction!r}')
    owner = logits_NV if logits_NV._base is None else logits_NV._base
    if inplace and owner.is_leaf and owner.requires_grad:
        raise ValueError("inplace would overwrite logits_NV, a leaf that requires a gradient")
    if inplace and logits_NV.dtype == torch.float16 and wants_grad(logits_NV):
        raise TypeError("inplace cannot have float16 logits_NV: their gradients would underflow")
    options = (ignore_index, label_smoothing, z_loss, softcap)
    if not native.is_built("masked_cross_entropy", logits_NV.device):
        check_logits(logits_NV, labels_N, row_weight_N, *options)
        return reference.masked_cross_entropy(
            logits_NV, labels_N, row_weight_N=row_weight_N, ignore_index=ignore_index,
            label_smoothing=label_smoothing, z_loss=z_loss, softcap=softcap, scale=scale,
            reduction=reduction,
        )  # fmt: skip
    if inplace and wants_grad(logits_NV):
        return CrossEntropy(*_InPlace.apply(logits_NV, labels_N, row_weight_N, *options, scale))
    # fp16 gradients would underflow before the loss scale reaches them: computed in the backward.
    now = reduction == "sum" and logits_NV.dtype != torch.float16 and wants_grad(logits_NV)
    loss, loss_N, lse_N, _ = torch.ops.bigft.masked_cross_entropy(
        logits_NV, labels_N, row_weight_N, *options, scale, now
    )
    if reduction == "none":
        return CrossEntropy(None, loss_N, lse_N.detach())
    return CrossEntropy(loss, loss_N.detach(), lse_N.detach())


class _InPlace(torch.autograd.Function):
    """The gradient takes the logits' memory; mutable operators cannot have an autograd formula."""

    @staticmethod
    def forward(ctx: Any, logits_NV: torch.Tensor, labels_N: torch.Tensor, *rest: Any) -> Any:
        *options, scale = rest
        loss_N, lse_N = torch.ops.bigft.masked_cross_entropy_(
            logits_NV.detach(), labels_N, *options, scale
        )
        # Operators of a library do not count it: whoever saved the logits would never know.
        torch.autograd.graph.increment_version(logits_NV)
        ctx.save_for_backward(logits_NV)  # now the gradient; a later change of it is noticed
        ctx.used = False
        ctx.mark_non_differentiable(loss_N, lse_N)
        return (loss_N.double().sum() * scale).to(loss_N.dtype), loss_N, lse_N

    @staticmethod
    def backward(ctx: Any, upstream: torch.Tensor, *unused: Any) -> Any:
        check_backward(NAME, ctx.used)
        ctx.used = True
        (grad_NV,) = ctx.saved_tensors
        return (scaled(grad_NV, upstream), *(None,) * 7)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    logits_NV, labels_N, row_weight_N, *options, ctx.scale, ctx.now = inputs
    _, _, lse_N, grad_NV = output
    ctx.options, ctx.used = options, False
    ctx.set_materialize_grads(False)
    if ctx.now:
        ctx.save_for_backward(grad_NV)
    else:
        ctx.save_for_backward(logits_NV, labels_N, row_weight_N, lse_N)


def _backward(ctx: Any, grad_loss: torch.Tensor | None, grad_loss_N: Any, *unused: Any) -> Any:
    check_backward(NAME, ctx.used)
    if ctx.now:
        ctx.used = True
        (grad_NV,) = ctx.saved_tensors
        grad = None if grad_loss is None else scaled(grad_NV, grad_loss)
    else:
        logits_NV, labels_N, row_weight_N, lse_N = ctx.saved_tensors
        upstream_N = row_upstream(lse_N, grad_loss, grad_loss_N, ctx.scale)
        grad = torch.ops.bigft.masked_cross_entropy_backward(
            upstream_N, logits_NV, labels_N, row_weight_N, lse_N, *ctx.options
        )
    return (grad, *(None,) * 8)


def row_upstream(
    lse_N: torch.Tensor,
    grad_loss: torch.Tensor | None,
    grad_loss_N: torch.Tensor | None,
    scale: float,
) -> torch.Tensor:
    """What each row's loss is multiplied by downstream, through the sum and through loss_N."""
    upstream_N = torch.zeros_like(lse_N)
    if grad_loss is not None:
        upstream_N = upstream_N + grad_loss * scale
    if grad_loss_N is not None:
        upstream_N = upstream_N + grad_loss_N
    return upstream_N


def _fake(logits_NV: torch.Tensor, labels_N: torch.Tensor, *rest: Any) -> Any:
    kept = torch.promote_types(logits_NV.dtype, torch.float32)
    loss_N = logits_NV.new_empty(labels_N.shape, dtype=kept)
    rows = logits_NV.shape[0] if rest[-1] else 0
    grad_NV = logits_NV.new_empty(rows, logits_NV.shape[1])
    return loss_N.new_empty(()), loss_N, torch.empty_like(loss_N), grad_NV


def _fake_(logits_NV: torch.Tensor, labels_N: torch.Tensor, *rest: Any) -> Any:
    kept = torch.promote_types(logits_NV.dtype, torch.float32)
    loss_N = logits_NV.new_empty(labels_N.shape, dtype=kept)
    return loss_N, torch.empty_like(loss_N)


def _fake_backward(grad_loss_N: torch.Tensor, logits_NV: torch.Tensor, *rest: Any) -> Any:
    return logits_NV.new_empty(logits_NV.shape)


def _fake_scale_(x: torch.Tensor, factor: torch.Tensor) -> None: ...


if not native.WHY_NOT:
    torch.library.register_fake("bigft::masked_cross_entropy", _fake)
    torch.library.register_fake("bigft::masked_cross_entropy_", _fake_)
    torch.library.register_fake("bigft::masked_cross_entropy_backward", _fake_backward)
    torch.library.register_fake("bigft::scale_", _fake_scale_)
    torch.library.register_autograd(
        "bigft::masked_cross_entropy", _backward, setup_context=_setup_context
    )
