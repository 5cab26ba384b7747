"""What heads of classes share: their last layer and the dropout before it as one operator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import nn

from bigft import ops
from bigft.models.heads.swap import CannotFuse, FusedHead, forward_as, plain_linear

if TYPE_CHECKING:
    from transformers import PreTrainedModel

MAX_LABELS = 128


class FusedAnswer(NamedTuple):
    """loss: fp32 scalar, what backward is called on.  loss_sum: the SUM over the targets.

    predictions_N: int64, the class of the largest logit; -1 where there is no target.
    """

    loss: torch.Tensor
    loss_sum: torch.Tensor
    predictions_N: torch.Tensor


class ClassHead(FusedHead):
    """A classifier behind a dropout, fused as `bigft.ops.token_classification_head`."""

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
        self._class_weights = class_weights
        self._weight_C: torch.Tensor | None = None

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

    def weight_C(self, device: torch.device) -> torch.Tensor | None:
        """fp32, what a target of each class weighs; None: 1."""
        if self._class_weights is None:
            return None
        if self._weight_C is None or self._weight_C.device != device:
            self._weight_C = torch.tensor(self._class_weights, dtype=torch.float32, device=device)
        return self._weight_C

    def fused_answer(
        self,
        rows: Callable[[torch.Tensor], torch.Tensor],
        labels_N: torch.Tensor,
        row_weight_N: torch.Tensor | None,
        scale: float,
        inputs: dict[str, Any],
    ) -> FusedAnswer:
        """What the operator makes of the model's last hidden state.

        rows: of what the classifier is given, [N, H], a row for each label.
        row_weight_N: fp32, a factor on the loss of each row, beside the class weights.
        Raises CannotFuse where the operator does not compute what the model does.
        """
        linear, dropout = self.linear, self.dropout or nn.Dropout(0.0)
        if linear.out_features > MAX_LABELS:
            raise CannotFuse(f"{linear.out_features} labels are more than {MAX_LABELS}")
        weight_C = self.weight_C(labels_N.device)
        if weight_C is not None:
            if self._label_smoothing > 0:
                raise CannotFuse("class weights act inside of the label smoothing")
            # A label out of range gets some weight here, and its error from the operator.
            by_class_N = weight_C[labels_N.clamp(0, len(weight_C) - 1)]
            row_weight_N = by_class_N if row_weight_N is None else row_weight_N * by_class_N
        undropped: list[torch.Tensor] = []

        def keep(hidden: torch.Tensor) -> torch.Tensor:
            undropped.append(hidden)
            return hidden

        def operator(hidden: torch.Tensor) -> ops.TokenClassification:
            if undropped and undropped[0].data_ptr() != hidden.data_ptr():
                raise CannotFuse("something stands between the dropout and the classifier")
            dropout_p, seed = 0.0, None
            if undropped and dropout.training and dropout.p > 0:
                dropout_p = dropout.p
                seed = torch.randint(2**63 - 1, (2,), device=hidden.device)
            return ops.token_classification_head(
                rows(hidden),
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
            loss, result, _ = self.answer(operator, inputs)
        assert result.loss_N is not None
        assert result.predictions_N is not None
        return FusedAnswer(loss, result.loss_N.sum(), result.predictions_N)
