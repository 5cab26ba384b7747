"""token_classification_head: dropout, linear layer, cross-entropy, argmax and gradients at once."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F

from bigft.ops import native, reference
from bigft.ops.arguments import autocast_to, check_backward, check_call, scaled, wants_grad
from bigft.ops.checks import check_token_head
from bigft.ops.outputs import TokenClassification

NAME = "token_classification_head"


def token_classification_head(
    hidden_NH: torch.Tensor,
    weight_CH: torch.Tensor,
    bias_C: torch.Tensor | None,
    labels_N: torch.Tensor | None = None,
    *,
    dropout_p: float = 0.0,
    seed: torch.Tensor | None = None,
    row_weight_N: torch.Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float = 0.0,
    scale: float = 1.0,
) -> TokenClassification:
    """masked_cross_entropy of dropout(hidden_NH) @ weight_CH.T + bias_C, and each row's best class.

    Hidden is read once and its gradient written once; masked rows are not read.

    Args:
        hidden_NH: fp32, bf16 or fp64. Under autocast computed as F.linear would.
        weight_CH, bias_C: of hidden's dtype, or fp32 beside bf16. C from 2 to 128.
        labels_N: as in masked_cross_entropy; None: only the logits are computed, without dropout
            and loss, differentiable.
        dropout_p: in [0, 1); what is kept is divided by 1 - dropout_p.
        seed: int64 [2] on hidden's device. The mask is a function of it and of an element's
            position (reference.dropout_mask); it is never stored.
        row_weight_N, ignore_index, label_smoothing, z_loss, softcap, scale: as in
            masked_cross_entropy, with reduction "sum".

    Returns: TokenClassification. Does not sync the host. Differentiable once, by one backward.

    Raises: as masked_cross_entropy; TypeError for fp16, whose gradients would underflow.
    Derivation: docs/numerics.md.
    """
    check_call(
        "sum", scale, row_weight_N, hidden_NH=hidden_NH, weight_CH=weight_CH,
        bias_C=bias_C, labels_N=labels_N, seed=seed,
    )  # fmt: skip
    hidden_NH = autocast_to(hidden_NH)
    if labels_N is None:
        if dropout_p != 0:
            raise ValueError(f"dropout_p must be 0 without labels_N, not {dropout_p}")
        weight_CH = weight_CH.to(hidden_NH.dtype)
        bias_C = None if bias_C is None else bias_C.to(hidden_NH.dtype)
        return TokenClassification(None, None, None, None, F.linear(hidden_NH, weight_CH, bias_C))
    options = (ignore_index, label_smoothing, z_loss, softcap)
    if not native.is_built("token_classification_head", hidden_NH.device):
        check_token_head(
            hidden_NH, weight_CH, bias_C, labels_N, dropout_p, seed, row_weight_N, *options
        )
        return reference.token_classification_head(
            hidden_NH, weight_CH, bias_C, labels_N, dropout_p=dropout_p, seed=seed,
            row_weight_N=row_weight_N, ignore_index=ignore_index, label_smoothing=label_smoothing,
            z_loss=z_loss, softcap=softcap, scale=scale,
        )  # fmt: skip
    wanted = [wants_grad(tensor) for tensor in (hidden_NH, weight_CH, bias_C)]
    loss, loss_N, lse_N, predictions_N, *_ = torch.ops.bigft.token_classification_head(
        hidden_NH, weight_CH, bias_C, labels_N, row_weight_N, seed, dropout_p, *options, scale,
        *wanted,
    )  # fmt: skip
    return TokenClassification(loss, loss_N.detach(), lse_N.detach(), predictions_N, None)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
    ctx.wanted, ctx.used = inputs[-3:], False
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(*output[4:])


def _backward(ctx: Any, grad_loss: torch.Tensor | None, *unused: Any) -> Any:
    check_backward(NAME, ctx.used, "call it again")
    ctx.used = True
    gradients = [
        scaled(gradient, grad_loss) if wanted and grad_loss is not None else None
        for gradient, wanted in zip(ctx.saved_tensors, ctx.wanted, strict=True)
    ]
    return (*gradients, *(None,) * 12)


def _fake(
    hidden_NH: torch.Tensor, weight_CH: torch.Tensor, bias_C: Any, labels_N: Any, *rest: Any
) -> Any:
    of_hidden, of_weight, of_bias = rest[-3:]
    kept = torch.promote_types(hidden_NH.dtype, torch.float32)
    loss_N = hidden_NH.new_empty(labels_N.shape, dtype=kept)
    predictions_N = hidden_NH.new_empty(labels_N.shape, dtype=torch.int64)
    (N, H), C = hidden_NH.shape, weight_CH.shape[0]
    bias = weight_CH if bias_C is None else bias_C
    return (
        loss_N.new_empty(()),
        loss_N,
        torch.empty_like(loss_N),
        predictions_N,
        hidden_NH.new_empty((N, H) if of_hidden else (0,)),
        weight_CH.new_empty((C, H) if of_weight else (0,)),
        bias.new_empty((C,) if of_bias and bias_C is not None else (0,)),
    )


if not native.WHY_NOT:
    torch.library.register_fake("bigft::token_classification_head", _fake)
    torch.library.register_autograd(
        "bigft::token_classification_head", _backward, setup_context=_setup_context
    )
