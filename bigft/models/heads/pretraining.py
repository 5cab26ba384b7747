"""BERT's two heads in one forward: masked tokens, and whether a segment follows another."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F

from bigft.models.heads.lm import LMHead
from bigft.models.heads.swap import base_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NEXT_SENTENCE_LAYER = "seq_relationship"  # as every architecture that has one calls it


class PretrainingOutput(NamedTuple):
    """loss, loss_sum, loss_BT, predictions_BT: as of LMHeadOutput; the two sums are of both heads.

    next_sentence_loss_B: fp32, detached, unweighted; 0 where there is no target.
    next_sentence_predictions_B: int64, 0 (follows) or 1.
    """

    loss: torch.Tensor
    loss_sum: torch.Tensor
    loss_BT: torch.Tensor
    predictions_BT: torch.Tensor | None
    next_sentence_loss_B: torch.Tensor
    next_sentence_predictions_B: torch.Tensor


def predicts_next_sentence(model: PreTrainedModel) -> bool:
    """Whether the model has a head that tells whether a segment follows another."""
    names = (name.rpartition(".")[2] for name, _ in base_model(model).named_modules())
    return NEXT_SENTENCE_LAYER in names


def attach_pretraining_head(
    model: PreTrainedModel, *, fused: bool = False, label_smoothing: float = 0.0
) -> None:
    """Makes `model(labels_BT=..., next_sentence_weight_B=..., **inputs)` answer with a
    PretrainingOutput; the rest is as of `attach_lm_head`.

    labels_BT: int64 [B, 1 + T]: before those of the tokens the label of the pair, 0 where the
        second segment follows the first and 1 where it does not; -100 is none.
    next_sentence_weight_B: fp32, what that target weighs beside a token.
    target_rows_M: places among the labels of the tokens alone, [B, T] flattened.
    label_smoothing: of the tokens.
    """
    PretrainingHead(model, fused, label_smoothing, z_loss=0.0)


class PretrainingHead(LMHead):
    """See attach_pretraining_head."""

    def __call__(
        self,
        *,
        labels_BT: torch.Tensor | None = None,
        next_sentence_weight_B: torch.Tensor | None = None,
        scale: float = 1.0,
        target_rows_M: torch.Tensor | None = None,
        **inputs: Any,
    ) -> Any:
        if labels_BT is None:
            return self.stock_forward(**inputs)
        assert next_sentence_weight_B is not None
        label_B, labels_BT = labels_BT[:, 0], labels_BT[:, 1:].contiguous()
        tokens, output = self.of_tokens(labels_BT, scale, target_rows_M, inputs)
        logits_B2 = output.seq_relationship_logits.float()
        loss_B = F.cross_entropy(logits_B2, label_B, reduction="none")
        loss_sum = (next_sentence_weight_B * loss_B).sum()
        return PretrainingOutput(
            tokens.loss + loss_sum * scale,
            tokens.loss_sum + loss_sum.detach(),
            tokens.loss_BT,
            tokens.predictions_BT,
            loss_B.detach(),
            logits_B2.detach().argmax(dim=-1),
        )

    def logits(self, output: Any) -> torch.Tensor:
        logits_BTV: torch.Tensor = output.prediction_logits
        return logits_BTV
