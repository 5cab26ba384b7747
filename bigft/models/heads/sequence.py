"""The head of texts that are classified or scored as one: (loss, logits)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F

from bigft.config.tasks import ProblemType
from bigft.models.heads.classes import ClassHead
from bigft.models.heads.swap import CannotFuse

if TYPE_CHECKING:
    from transformers import PreTrainedModel

IGNORE_INDEX = -100
TINY = 1e-12


class SequenceHeadOutput(NamedTuple):
    """loss: fp32 scalar, scale * loss_sum: what backward is called on.

    loss_sum: fp32 scalar, detached: the SUM over the targets, each times its row's weight.
    logits_BC: fp32, detached; None where the fused head trains.
    """

    loss: torch.Tensor
    loss_sum: torch.Tensor
    logits_BC: torch.Tensor | None


def attach_sequence_head(
    model: PreTrainedModel,
    problem_type: ProblemType,
    *,
    fused: bool = False,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
    focal_gamma: float = 0.0,
) -> None:
    """Makes `model(labels_BT=..., scale=1.0, row_weight_B=None, **inputs)` answer with a
    SequenceHeadOutput. Attach it after adapters: they copy modules.

    labels_BT: what the targets are, by problem_type.
        single_label_classification: [B] int64, a class; cross-entropy.
        multi_label_classification: [B, C] int64, 0 or 1 for each class; binary cross-entropy.
        regression: [B] fp32; squared error.
        -100, or of real numbers NaN, is no target.
    row_weight_B: fp32, a factor on the loss of each row; None: 1.
    fused: in training of single labels the classifier and the dropout before it are one operator;
        elsewhere logits are asked for, and the stock head answers. A forward raises CannotFuse
        where that is not possible.
    label_smoothing: in [0, 1), of single labels.
    class_weights: one per class, a factor on a target's loss.
    focal_gamma: >= 0, the exponent of Lin et al., Focal Loss for Dense Object Detection (2017),
        equation 4: a factor (1 - p)^gamma on the loss of a target whose probability is p.
    """
    SequenceHead(model, problem_type, fused, label_smoothing, class_weights, focal_gamma)


class SequenceHead(ClassHead):
    """See attach_sequence_head."""

    def __init__(
        self,
        model: PreTrainedModel,
        problem_type: ProblemType,
        fused: bool,
        label_smoothing: float,
        class_weights: Sequence[float] | None,
        focal_gamma: float,
    ) -> None:
        super().__init__(model, fused, label_smoothing, class_weights)
        self._problem_type, self._focal_gamma = problem_type, focal_gamma

    def __call__(
        self,
        *,
        labels_BT: torch.Tensor,
        scale: float = 1.0,
        row_weight_B: torch.Tensor | None = None,
        **inputs: Any,
    ) -> SequenceHeadOutput:
        if self.fused and self.trains:
            return self._fused(labels_BT, scale, row_weight_B, inputs)
        logits_BC = self.stock_forward(**inputs).logits.float()
        loss = self._loss(logits_BC, labels_BT)  # [B], or [B, C]
        if row_weight_B is not None:
            loss = loss * (row_weight_B if loss.ndim == 1 else row_weight_B[:, None])
        loss_sum = loss.sum()
        return SequenceHeadOutput(loss_sum * scale, loss_sum.detach(), logits_BC.detach())

    def _loss(self, logits_BC: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Of every target its loss, 0 where there is none."""
        weight_C = self.weight_C(labels.device)
        if self._problem_type == "regression":
            is_target_B = ~labels.isnan()
            return (logits_BC.squeeze(1) - labels.where(is_target_B, 0)) ** 2 * is_target_B
        if self._problem_type == "multi_label_classification":
            is_target_BC = labels != IGNORE_INDEX
            gold_BC = labels.where(is_target_BC, 0).to(logits_BC)
            loss_BC = F.binary_cross_entropy_with_logits(logits_BC, gold_BC, reduction="none")
            loss_BC = self._focused(loss_BC, loss_BC) * is_target_BC
            return loss_BC if weight_C is None else loss_BC * weight_C
        plain_B = F.cross_entropy(logits_BC, labels, reduction="none")
        if weight_C is None and not self._label_smoothing:
            return self._focused(plain_B, plain_B)
        loss_B = F.cross_entropy(
            logits_BC, labels, weight_C, reduction="none", label_smoothing=self._label_smoothing
        )
        return self._focused(loss_B, plain_B)

    def _focused(self, loss: torch.Tensor, plain: torch.Tensor) -> torch.Tensor:
        """plain: the negative logarithm of each target's probability."""
        if not self._focal_gamma:
            return loss
        missed = (-torch.expm1(-plain)).clamp_min(
            TINY
        )  # the gradient of 0 to a power below 1 is infinite
        return missed**self._focal_gamma * loss

    def _fused(
        self,
        labels_B: torch.Tensor,
        scale: float,
        row_weight_B: torch.Tensor | None,
        inputs: dict[str, Any],
    ) -> SequenceHeadOutput:
        if self._problem_type != "single_label_classification":
            raise CannotFuse("its targets are not one class of several")
        if self._focal_gamma:
            raise CannotFuse("a focal loss has no operator")

        def rows(hidden_BH: torch.Tensor) -> torch.Tensor:
            if hidden_BH.shape[:-1] != labels_B.shape:
                raise CannotFuse("the classifier is not given one row for each text")
            return hidden_BH

        answer = self.fused_answer(rows, labels_B, row_weight_B, scale, inputs)
        return SequenceHeadOutput(answer.loss, answer.loss_sum, None)
