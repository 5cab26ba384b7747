"""linear_cross_entropy: the loss of a language-model head without the logits of all rows."""

from __future__ import annotations

from typing import Any

import torch

from bigft.ops import native, reference
from bigft.ops._masked_cross_entropy import row_upstream
from bigft.ops.arguments import autocast_to, check_backward, check_call, scaled, wants_grad
from bigft.ops.checks import check_linear
from bigft.ops.outputs import LinearCrossEntropy

NAME = "linear_cross_entropy"


def linear_cross_entropy(
    hidden_NH: torch.Tensor,
    weight_VH: torch.Tensor,
    labels_N: torch.Tensor,
    *,
    bias_V: torch.Tensor | None = None,
    target_rows_M: torch.Tensor | None = None,
    row_weight_N: torch.Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float = 0.0,
    scale: float = 1.0,
    reduction: str = "sum",
    predictions: bool = False,
    lean: bool = False,
    workspace_bytes: int | None = None,
) -> LinearCrossEntropy:
    """masked_cross_entropy of hidden_NH @ weight_VH.T + bias_V, for the rows with a target alone.

    A masked row is neither read nor multiplied; logits live in a workspace that is used again.

    Args:
        hidden_NH: fp32, bf16, fp16 or fp64. Under autocast computed as F.linear would.
        weight_VH, bias_V: of hidden's dtype, or fp32 beside 16 bits: then their gradients are fp32
            sums that never were 16 bits wide. A tied weight gets its gradient added, as always.
        target_rows_M: int64, the rows whose label is not ignore_index, ascending. Without it they
            are looked up, which syncs the host. On CUDA they are not checked.
        labels_N, row_weight_N, ignore_index, label_smoothing, z_loss, softcap, scale, reduction: as
            in masked_cross_entropy. "none" saves hidden, weight and lse, and computes the logits
            again in the backward: one product of four more.
        predictions: also the largest logit's class of each row with a target.
        lean: by tiles of the vocabulary, with "sum": one product more, the least memory.
        workspace_bytes: of the logits that are held at once; None: 1 GiB on CUDA, 16 MiB on a CPU,
            or one chunk where that is smaller than the fp32 sums that several chunks need. At
            least 1,024 rows on CUDA and 128 on a CPU are held, whatever is asked.

    Returns: LinearCrossEntropy. Syncs the host only without target_rows_M. Once differentiable.

    Raises: as masked_cross_entropy. Derivation: docs/numerics.md.
    """
    check_call(
        reduction, scale, row_weight_N, hidden_NH=hidden_NH, weight_VH=weight_VH,
        bias_V=bias_V, labels_N=labels_N, target_rows_M=target_rows_M,
    )  # fmt: skip
    if lean and reduction == "none":
        raise ValueError('lean needs reduction "sum", not "none"')
    if workspace_bytes is not None and workspace_bytes <= 0:
        raise ValueError(f"workspace_bytes must be positive or None, not {workspace_bytes}")
    hidden_NH = autocast_to(hidden_NH)
    options = (ignore_index, label_smoothing, z_loss, softcap)
    if not native.is_built("linear_cross_entropy", hidden_NH.device):
        check_linear(hidden_NH, weight_VH, bias_V, labels_N, target_rows_M, row_weight_N, *options)
        return reference.linear_cross_entropy(
            hidden_NH, weight_VH, labels_N, bias_V=bias_V, target_rows_M=target_rows_M,
            row_weight_N=row_weight_N, ignore_index=ignore_index, label_smoothing=label_smoothing,
            z_loss=z_loss, softcap=softcap, scale=scale, reduction=reduction,
            predictions=predictions,
        )  # fmt: skip
    # fp16 gradients would underflow before the loss scale reaches them: computed in the backward.
    now = reduction == "sum" and hidden_NH.dtype != torch.float16
    wanted = [now and wants_grad(tensor) for tensor in (hidden_NH, weight_VH, bias_V)]
    loss, loss_N, lse_N, predictions_N, *_ = torch.ops.bigft.linear_cross_entropy(
        hidden_NH, weight_VH, bias_V, labels_N, target_rows_M, row_weight_N, *options, scale,
        workspace_bytes or 0, lean, predictions, *wanted,
    )  # fmt: skip
    is_sum = reduction == "sum"
    return LinearCrossEntropy(
        loss if is_sum else None,
        loss_N.detach() if is_sum else loss_N,
        lse_N.detach(),
        predictions_N if predictions else None,
    )


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    hidden_NH, weight_VH, bias_V, labels_N, target_rows_M, row_weight_N, *options = inputs
    ctx.options, ctx.scale, ctx.workspace_bytes = options[:4], options[4], options[5]
    ctx.now, ctx.used = any(options[8:]), False
    _, _, lse_N, _, *gradients = output
    ctx.set_materialize_grads(False)
    if ctx.now:
        ctx.wanted = options[8:]
        ctx.save_for_backward(*gradients)
    else:
        # The weight itself, never a cast or a view of it: ZeRO-3 swaps a parameter's storage.
        ctx.save_for_backward(
            hidden_NH, weight_VH, bias_V, labels_N, target_rows_M, row_weight_N, lse_N
        )


def _backward(ctx: Any, grad_loss: torch.Tensor | None, grad_loss_N: Any, *unused: Any) -> Any:
    check_backward(NAME, ctx.used)
    if ctx.now:
        ctx.used = True
        gradients = [
            scaled(gradient, grad_loss) if wanted and grad_loss is not None else None
            for gradient, wanted in zip(ctx.saved_tensors, ctx.wanted, strict=True)
        ]
    else:
        *inputs, lse_N = ctx.saved_tensors
        wanted = ctx.needs_input_grad[:3]
        upstream_N = row_upstream(lse_N, grad_loss, grad_loss_N, ctx.scale)
        found = torch.ops.bigft.linear_cross_entropy_backward(
            upstream_N, *inputs, lse_N, *ctx.options, ctx.workspace_bytes, *wanted
        )
        gradients = [
            gradient if asked else None for gradient, asked in zip(found, wanted, strict=True)
        ]
    return (*gradients, *(None,) * 14)


def _fake_gradients(inputs: tuple[Any, ...], wanted: tuple[bool, ...]) -> list[torch.Tensor]:
    like = [inputs[1] if tensor is None else tensor for tensor in inputs]
    return [
        torch.empty_like(tensor, memory_format=torch.contiguous_format)
        if asked and given is not None
        else tensor.new_empty(0)
        for tensor, given, asked in zip(like, inputs, wanted, strict=True)
    ]


def _fake(
    hidden_NH: torch.Tensor, weight_VH: torch.Tensor, bias_V: Any, labels_N: Any, *rest: Any
) -> Any:
    *_, predictions, of_hidden, of_weight, of_bias = rest
    kept = torch.promote_types(hidden_NH.dtype, torch.float32)
    loss_N = hidden_NH.new_empty(labels_N.shape, dtype=kept)
    shape = labels_N.shape if predictions else (0,)
    predictions_N = hidden_NH.new_empty(shape, dtype=torch.int64)
    gradients = _fake_gradients((hidden_NH, weight_VH, bias_V), (of_hidden, of_weight, of_bias))
    return loss_N.new_empty(()), loss_N, torch.empty_like(loss_N), predictions_N, *gradients


def _fake_backward(
    grad_loss_N: Any, hidden_NH: Any, weight_VH: Any, bias_V: Any, *rest: Any
) -> Any:
    return tuple(_fake_gradients((hidden_NH, weight_VH, bias_V), rest[-3:]))


if not native.WHY_NOT:
    torch.library.register_fake("bigft::linear_cross_entropy", _fake)
    torch.library.register_fake("bigft::linear_cross_entropy_backward", _fake_backward)
    torch.library.register_autograd(
        "bigft::linear_cross_entropy", _backward, setup_context=_setup_context
    )
