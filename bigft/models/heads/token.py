"""The token-classification head: (loss, predictions), whatever computes them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from bigft import ops
from bigft.models.heads.swap import CannotFuse, FusedHead, forward_as, plain_linear

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_LABELS = 128


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


class TokenHead(FusedHead):
    """See attach_token_head."""

    operator = "token_classification_head"

    def __init__(
        self,
        model: PreTrainedModel,
        fused: bool,
        label_smoothing: float,
        class_weights: Sequence[float] | None,
    ) -> None:
        super().__init__(model, fused)
        self._label_smoothing = label_smoothing
        self._weight_C = None
        if class_weights is not None:
            self._weight_C = torch.tensor(class_weights, dtype=torch.float32)

    @property
    def linear(self) -> nn.Linear:
        """The classifier: transformers puts it last, whatever its name."""
        return plain_linear([*self.model.children()][-1])

    @property
    def dropout(self) -> nn.Dropout | None:
        """The dropout between the model's body and its classifier."""
        found = [child for child in self.model.children() if type(child) is nn.Dropout]
        if len(found) > 1:
            raise CannotFuse("there are several dropouts before the classifier")
        return found[0] if found else None

    @property
    def entrance(self) -> nn.Module:
        return self.dropout or self.linear

    def __call__(
        self, *, labels_BT: torch.Tensor, scale: float = 1.0, **inputs: Any
    ) -> TokenHeadOutput:
        if self._weight_C is not None:
            self._weight_C = self._weight_C.to(labels_BT.device)
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
            weight=self._weight_C,
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
        linear, dropout = self.linear, self.dropout or nn.Dropout(0.0)
        labels_N = labels_BT.flatten()
        if linear.out_features > MAX_LABELS:
            raise CannotFuse(f"{linear.out_features} labels are more than {MAX_LABELS}")
        row_weight_N = None
        if self._weight_C is not None:
            if self._label_smoothing > 0:
                raise CannotFuse("class weights act inside of the label smoothing")
            # A label out of range gets some weight here, and its error from the operator.
            row_weight_N = self._weight_C[labels_N.clamp(0, len(self._weight_C) - 1)]
        undropped: list[torch.Tensor] = []

        def keep(hidden_BTH: torch.Tensor) -> torch.Tensor:
            undropped.append(hidden_BTH)
            return hidden_BTH

        def operator(hidden_BTH: torch.Tensor) -> ops.TokenClassification:
            if undropped and undropped[0].data_ptr() != hidden_BTH.data_ptr():
                raise CannotFuse("something stands between the dropout and the classifier")
            dropout_p, seed = 0.0, None
            if undropped and dropout.training and dropout.p > 0:
                dropout_p = dropout.p
                seed = torch.randint(2**63 - 1, (2,), device=hidden_BTH.device)
            hidden_BTH = hidden_BTH[:, -labels_BT.shape[1] :]  # behind an adapter's virtual tokens
            return ops.token_classification_head(
                hidden_BTH.flatten(0, 1),
                linear.weight,
                linear.bias,
                labels_N,
                dropout_p=dropout_p,
                seed=seed,
                row_weight_N=row_weight_N,
                label_smoothing=self._label_smoothing,
                scale=scale,
            )

        with forward_as(dropout, keep):
            loss, result = self.answer(operator, inputs)
        assert result.loss_N is not None
        assert result.predictions_N is not None
        return TokenHeadOutput(
            loss, result.loss_N.sum(), result.predictions_N.view_as(labels_BT), None
        )
