"""What the operators return."""

from __future__ import annotations

from typing import NamedTuple

import torch


class CrossEntropy(NamedTuple):
    """loss: scalar, scale * the SUM of loss_N; None with reduction "none".

    loss_N, lse_N: [N], 0 in masked rows. Losses are multiplied by row_weight_N. Detached, but for
    loss_N with reduction "none". All are fp32 (fp64 where the input is).
    """

    loss: torch.Tensor | None
    loss_N: torch.Tensor
    lse_N: torch.Tensor


class LinearCrossEntropy(NamedTuple):
    """As CrossEntropy.  predictions_N: int64, -1 in masked rows; None unless asked for."""

    loss: torch.Tensor | None
    loss_N: torch.Tensor
    lse_N: torch.Tensor
    predictions_N: torch.Tensor | None


class TokenClassification(NamedTuple):
    """As CrossEntropy, detached but for the loss and the logits.

    predictions_N: int64, the lowest class of the largest logits; -1 in masked rows.
    Without labels only logits_NC, with labels all but that.
    """

    loss: torch.Tensor | None
    loss_N: torch.Tensor | None
    lse_N: torch.Tensor | None
    predictions_N: torch.Tensor | None
    logits_NC: torch.Tensor | None
