"""The token-classification head: (loss, predictions), whatever computes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F

from bigft.models.heads.classes import ClassHead

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class TokenHeadOutput(NamedTuple):
    """loss: fp32 scalar, scale * loss_sum: what backward is called on.

    loss_sum: fp32 scalar, detached: the SUM over the targets.
    predictions_BT: int64, the class of the largest logit; of ties the lowest. Where the fused head
        trains it is -1 where there is no target, since it never reads those rows.
    logits_BTC: fp32, detached; None where the fused head trains.
    """

    loss: torch.Tensor
    loss_sum: torch.Tensor
    predictions_BT: torch.Tensor
    logits_BTC: torch.Tensor | None


def attach_token_head(
    model: PreTrainedModel,
    *,
    fused: bool = False,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
) -> None:
    """Makes `model(labels_BT=..., scale=1.0, **inputs)` answer with a TokenHeadOutput.

    The loss is computed inside `forward`, where ZeRO-3's hooks have the classifier's weight at
    hand. Attach it after adapters: they copy modules, and a copy may miss what was attached.

    fused: in training (grad enabled, `model.training`) the classifier and the dropout before it
        are one operator, `bigft.ops.token_classification_head`; elsewhere scores are asked for,
        and the stock head answers. A forward raises CannotFuse where that is not possible.
    labels_BT: int64, -100 is no target.  label_smoothing: in [0, 1).
    class_weights: one per class, multiplies a target's loss; what the sum is divided by stays
        the number of targets (docs/numerics.md).
    """
    TokenHead(model, fused, label_smoothing, class_weights)


class TokenHead(ClassHead):
    """See attach_token_head."""

    def __call__(
        self, *, labels_BT: torch.Tensor, scale: float = 1.0, **inputs: Any
    ) -> TokenHeadOutput:
        if self.fused and self.trains:
            return self._fused(labels_BT, scale, inputs)
        return self._stock(labels_BT, scale, inputs)

    def _stock(
        self, labels_BT: torch.Tensor, scale: float, inputs: dict[str, Any]
    ) -> TokenHeadOutput:
        logits_BTC = self.stock_forward(**inputs).logits.float()
        logits_BTC = logits_BTC[:, -labels_BT.shape[1] :]  # behind an adapter's virtual tokens
        loss_sum = F.cross_entropy(
            logits_BTC.flatten(0, 1),
            labels_BT.flatten(),
            weight=self.weight_C(labels_BT.device),
            reduction="sum",
            label_smoothing=self._label_smoothing,
        )
        logits_BTC = logits_BTC.detach()
        return TokenHeadOutput(
            loss_sum * scale, loss_sum.detach(), logits_BTC.argmax(dim=-1), logits_BTC
        )

    def _fused(
        self, labels_BT: torch.Tensor, scale: float, inputs: dict[str, Any]
    ) -> TokenHeadOutput:
        def rows(hidden_BTH: torch.Tensor) -> torch.Tensor:
            hidden_BTH = hidden_BTH[:, -labels_BT.shape[1] :]  # behind an adapter's virtual tokens
            return hidden_BTH.flatten(0, 1)

        answer = self.fused_answer(rows, labels_BT.flatten(), None, scale, inputs)
        predictions_BT = answer.predictions_N.view_as(labels_BT)
        return TokenHeadOutput(answer.loss, answer.loss_sum, predictions_BT, None)
