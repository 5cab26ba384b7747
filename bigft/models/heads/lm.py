"""The language-modelling head, causal or masked: (loss, predictions), whatever computes them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from bigft import ops
from bigft.models.heads.swap import FusedHead, plain_linear

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

IGNORE_INDEX = -100
# What architectures do to their logits, by the key of their config that says how much.
FACTORS = ("logit_scale", "lm_head_multiplier")  # Cohere, Falcon-H1
DIVISORS = ("logits_scaling",)  # Granite
SOFTCAPS = ("final_logit_softcapping", "logits_soft_cap")  # Gemma, RecurrentGemma


class LMHeadOutput(NamedTuple):
    """loss: fp32 scalar, scale * loss_sum: what backward is called on.

    loss_sum: fp32 scalar, detached: the SUM over the targets.
    loss_BT: fp32, detached; 0 where there is no target.
    predictions_BT: int64, the token of the largest logit, of ties the lowest; -1 where there is no
        target. None in training, where nobody asks.
    """

    loss: torch.Tensor
    loss_sum: torch.Tensor
    loss_BT: torch.Tensor
    predictions_BT: torch.Tensor | None


def attach_lm_head(
    model: PreTrainedModel,
    *,
    fused: bool = False,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> None:
    """Makes `model(labels_BT=..., scale=1.0, target_rows_M=None, **inputs)` answer with an
    LMHeadOutput. Without `labels_BT` the call is the model's own forward, as `generate` needs it.

    Attach it after adapters: they copy modules, and a copy may miss what was attached.

    fused: `bigft.ops.linear_cross_entropy` takes the hidden state that the last layer is given, in
        training and in evaluation; logits of all rows never exist. A forward raises CannotFuse
        where that is not possible.
    labels_BT: int64, aligned: labels_BT[b, t] is what position t predicts (of a causal model the
        next token: it is shifted already; of a masked one the token in its place); -100 is none.
    target_rows_M: int64, the rows of the flattened labels that are targets, where they are known.
    label_smoothing: in [0, 1), in training.  z_loss: the factor of lse^2, >= 0.
    """
    LMHead(model, fused, label_smoothing, z_loss)


class LMHead(FusedHead):
    """See attach_lm_head."""

    operator = "linear_cross_entropy"

    def __init__(
        self, model: PreTrainedModel, fused: bool, label_smoothing: float, z_loss: float
    ) -> None:
        super().__init__(model, fused)
        self._training_smoothing, self._z_loss = label_smoothing, z_loss
        self._factor, self._softcap = logit_changes(self.model.config.get_text_config())

    @property
    def _label_smoothing(self) -> float:
        """None in evaluation, whose loss is that of a perplexity."""
        return self._training_smoothing if self.trains else 0.0

    @property
    def linear(self) -> nn.Linear:
        """`lm_head` or `decoder`: the model knows which, tied to its embeddings or not."""
        return plain_linear(self.model.get_output_embeddings())

    def __call__(
        self,
        *,
        labels_BT: torch.Tensor | None = None,
        scale: float = 1.0,
        target_rows_M: torch.Tensor | None = None,
        **inputs: Any,
    ) -> Any:
        if labels_BT is None:
            return self.stock_forward(**inputs)
        return self.of_tokens(labels_BT, scale, target_rows_M, inputs)[0]

    def of_tokens(
        self,
        labels_BT: torch.Tensor,
        scale: float,
        target_rows_M: torch.Tensor | None,
        inputs: dict[str, Any],
    ) -> tuple[LMHeadOutput, Any]:
        """What is asked of the tokens, and the model's own output, where the head is fused without
        logits."""
        if self.fused:
            return self._fused(labels_BT, scale, target_rows_M, inputs)
        return self._stock(labels_BT, scale, inputs)

    def logits(self, output: Any) -> torch.Tensor:
        """Those of the tokens, of the model's own output."""
        logits_BTV: torch.Tensor = output.logits
        return logits_BTV

    def _stock(
        self, labels_BT: torch.Tensor, scale: float, inputs: dict[str, Any]
    ) -> tuple[LMHeadOutput, Any]:
        output = self.stock_forward(**inputs)
        logits_BTV = self.logits(output).float()
        logits_BTV = logits_BTV[:, -labels_BT.shape[1] :]  # behind an adapter's virtual tokens
        logits_NV, labels_N = logits_BTV.flatten(0, 1), labels_BT.flatten().long()
        loss_N = F.cross_entropy(
            logits_NV, labels_N, reduction="none", label_smoothing=self._label_smoothing
        )
        is_target_N = labels_N != IGNORE_INDEX
        if self._z_loss > 0:
            loss_N = loss_N + self._z_loss * logits_NV.logsumexp(dim=-1) ** 2 * is_target_N
        loss_sum = loss_N.sum()
        predictions_BT = None
        if not self.trains:
            best_N = logits_NV.argmax(dim=-1).where(is_target_N, -1)
            predictions_BT = best_N.view_as(labels_BT)
        loss_BT = loss_N.detach().view_as(labels_BT)
        answer = LMHeadOutput(loss_sum * scale, loss_sum.detach(), loss_BT, predictions_BT)
        return answer, output

    def _fused(
        self,
        labels_BT: torch.Tensor,
        scale: float,
        target_rows_M: torch.Tensor | None,
        inputs: dict[str, Any],
    ) -> tuple[LMHeadOutput, Any]:
        linear = self.linear

        def operator(hidden_BTH: torch.Tensor) -> ops.LinearCrossEntropy:
            # c * (h W^T) = (c * h) W^T: N * H numbers instead of N * V. No architecture has a
            # factor and a bias. A factor that is no power of two rounds hidden once; the stock
            # head's logits, in 16 bits, are rounded as well.
            if self._factor != 1.0:
                hidden_BTH = hidden_BTH * self._factor
            hidden_BTH = hidden_BTH[:, -labels_BT.shape[1] :]  # behind an adapter's virtual tokens
            return ops.linear_cross_entropy(
                hidden_BTH.flatten(0, 1),
                linear.weight,
                labels_BT.flatten(),
                bias_V=linear.bias,
                target_rows_M=target_rows_M,
                label_smoothing=self._label_smoothing,
                z_loss=self._z_loss,
                softcap=self._softcap,
                scale=scale,
                predictions=not self.trains,
            )

        loss, result, output = self.answer(operator, inputs)
        loss_BT = result.loss_N.view_as(labels_BT)
        predictions_BT = None
        if result.predictions_N is not None:
            predictions_BT = result.predictions_N.view_as(labels_BT)
        return LMHeadOutput(loss, loss_BT.sum(), loss_BT, predictions_BT), output


def logit_changes(config: PretrainedConfig) -> tuple[float, float]:
    """(factor, softcap) that the architecture applies to its logits, in this order; (1, 0): none.

    An architecture that uses these keys otherwise, or does more, is found by `choose_head`.
    """
    factor = 1.0
    for key in FACTORS:
        factor *= getattr(config, key, None) or 1.0
    for key in DIVISORS:
        factor /= getattr(config, key, None) or 1.0
    softcaps = [getattr(config, key, None) or 0.0 for key in SOFTCAPS]
    return factor, max(softcaps)
