"""The token-classification head: (loss sum, predictions), whatever computes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TokenHeadOutput(NamedTuple):
    """loss_sum: fp32 scalar, the SUM over the targets.  logits_BTC: fp32, detached.

    predictions_BT: int64, the class of the largest logit; of ties the lowest.
    """

    loss_sum: torch.Tensor
    predictions_BT: torch.Tensor
    logits_BTC: torch.Tensor


def attach_token_head(
    model: PreTrainedModel,
    *,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
) -> None:
    """Makes `model(labels_BT=..., **inputs)` answer with a TokenHeadOutput.

    The stock classifier runs as transformers wrote it; parameters and their names stay, so a
    checkpoint remains transformers' own. The loss is computed inside `forward`, where ZeRO-3's
    hooks have the classifier's weight at hand.

    labels_BT: int64, -100 is no target.  label_smoothing: in [0, 1).
    class_weights: one per class, multiplies a target's loss; what the sum is divided by stays
        the number of targets (docs/numerics.md).
    """
    stock_forward = model.forward
    weight_C = None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)

    def forward(*, labels_BT: torch.Tensor, **inputs: Any) -> TokenHeadOutput:
        logits_BTC = stock_forward(**inputs).logits.float()
        loss_sum = F.cross_entropy(
            logits_BTC.flatten(0, 1),
            labels_BT.flatten(),
            weight=None if weight_C is None else weight_C.to(logits_BTC.device),
            reduction="sum",
            label_smoothing=label_smoothing,
        )
        logits_BTC = logits_BTC.detach()
        return TokenHeadOutput(loss_sum, logits_BTC.argmax(dim=-1), logits_BTC)

    model.forward = forward  # on the instance: the class is shared
