"""The head of extractive question answering: where the answer begins and where it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from bigft.models.heads.swap import Head

if TYPE_CHECKING:
    from transformers import PreTrainedModel

IGNORE_INDEX = -100


class SpanHeadOutput(NamedTuple):
    """loss: fp32 scalar, scale * loss_sum: what backward is called on.

    loss_sum: fp32 scalar, detached: the SUM over the targets.
    start_logits_BT, end_logits_BT: fp32, detached; -inf where a row is padded.
    """

    loss: torch.Tensor
    loss_sum: torch.Tensor
    start_logits_BT: torch.Tensor
    end_logits_BT: torch.Tensor


def attach_span_head(model: PreTrainedModel, *, label_smoothing: float = 0.0) -> None:
    """Makes `model(labels_B2=..., is_token_BT=..., scale=1.0, **inputs)` answer with a
    SpanHeadOutput. Attach it after adapters: they copy modules, and a copy may miss what was
    attached.

    labels_B2: int64, the positions of the answer's first and last token, a target each; -100 is
        none.
    is_token_BT: 1 where a row has a token. The others are no candidates: a probability that
        depended on them would depend on what else is in the batch.
    label_smoothing: in [0, 1), in training: that share of a target is spread over the row's tokens.
    """
    SpanHead(model, label_smoothing)


class SpanHead(Head):
    """See attach_span_head."""

    def __init__(self, model: PreTrainedModel, label_smoothing: float) -> None:
        super().__init__(model)
        self._label_smoothing = label_smoothing

    def __call__(
        self,
        *,
        labels_B2: torch.Tensor,
        is_token_BT: torch.Tensor,
        scale: float = 1.0,
        **inputs: Any,
    ) -> SpanHeadOutput:
        answer = self.stock_forward(**inputs)
        logits_2BT = torch.stack([answer.start_logits, answer.end_logits]).float()
        logits_2BT = logits_2BT[..., -is_token_BT.shape[1] :]  # behind an adapter's virtual tokens
        is_token_BT = is_token_BT.bool()
        log_p_2BT = logits_2BT.masked_fill(~is_token_BT, -torch.inf).log_softmax(dim=-1)
        labels_2B = labels_B2.T
        is_target_2B = labels_2B != IGNORE_INDEX
        picked_2B = log_p_2BT.gather(2, labels_2B.clamp_min(0)[..., None])[..., 0]
        if self.trains and self._label_smoothing > 0:
            spread_2B = log_p_2BT.masked_fill(~is_token_BT, 0).sum(-1) / is_token_BT.sum(-1)
            picked_2B = picked_2B.lerp(spread_2B, self._label_smoothing)
        loss_sum = -picked_2B.where(is_target_2B, 0).sum()
        start_BT, end_BT = logits_2BT.detach().masked_fill(~is_token_BT, -torch.inf)
        return SpanHeadOutput(loss_sum * scale, loss_sum.detach(), start_BT, end_BT)
