"""The operators' definition in plain torch: what they must compute, and what serves where csrc is
not built. Formulas and gradients: docs/numerics.md."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from bigft.ops.outputs import CrossEntropy, LinearCrossEntropy, TokenClassification

PHILOX_ROUNDS = 10
PHILOX_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
PHILOX_KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
UINT32 = 2**32 - 1


def masked_cross_entropy(
    logits_NV: torch.Tensor,
    labels_N: torch.Tensor,
    *,
    row_weight_N: torch.Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float = 0.0,
    scale: float = 1.0,
    reduction: str = "sum",
) -> CrossEntropy:
    """See bigft.ops.masked_cross_entropy. Masked rows are left out before anything is computed."""
    rows_M = target_rows(labels_N, ignore_index)
    return _scattered(
        logits_NV.index_select(0, rows_M), labels_N, rows_M, row_weight_N,
        label_smoothing, z_loss, softcap, scale, reduction,
    )  # fmt: skip


def linear_cross_entropy(
    hidden_NH: torch.Tensor,
    weight_VH: torch.Tensor,
    labels_N: torch.Tensor,
    *,
    bias_V: torch.Tensor | None = None,
    target_rows_M: torch.Tensor | None = None,
    row_weight_N: torch.Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float = 0.0,
    scale: float = 1.0,
    reduction: str = "sum",
    predictions: bool = False,
) -> LinearCrossEntropy:
    """See bigft.ops.linear_cross_entropy. Holds the logits of all rows with a target at once."""
    rows_M = target_rows(labels_N, ignore_index)
    if target_rows_M is not None:
        rows_M = target_rows_M[labels_N[target_rows_M] != ignore_index]
    logits_MV = _linear(hidden_NH.index_select(0, rows_M), weight_VH, bias_V)
    loss, loss_N, lse_N = _scattered(
        logits_MV, labels_N, rows_M, row_weight_N,
        label_smoothing, z_loss, softcap, scale, reduction,
    )  # fmt: skip
    predictions_N = _predictions(logits_MV, labels_N, rows_M) if predictions else None
    return LinearCrossEntropy(loss, loss_N, lse_N, predictions_N)


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
    """See bigft.ops.token_classification_head."""
    if labels_N is None:
        return TokenClassification(None, None, None, None, _linear(hidden_NH, weight_CH, bias_C))
    rows_M = target_rows(labels_N, ignore_index)
    hidden_MH = hidden_NH.index_select(0, rows_M)
    if dropout_p > 0:
        assert seed is not None
        num_rows, hidden_size = hidden_NH.shape
        keep_NH = dropout_mask(seed, num_rows, hidden_size, dropout_p)
        kept_MH = keep_NH.to(hidden_NH.device).index_select(0, rows_M)
        hidden_MH = hidden_MH * kept_MH / (1 - dropout_p)
    logits_MC = _linear(hidden_MH, weight_CH, bias_C)
    loss, loss_N, lse_N = _scattered(
        logits_MC, labels_N, rows_M, row_weight_N,
        label_smoothing, z_loss, softcap, scale, "sum",
    )  # fmt: skip
    return TokenClassification(loss, loss_N, lse_N, _predictions(logits_MC, labels_N, rows_M), None)


def target_rows(labels_N: torch.Tensor, ignore_index: int) -> torch.Tensor:
    """int64 [M]: the rows with a target, in ascending order."""
    return (labels_N != ignore_index).nonzero().squeeze(1)


def dropout_mask(
    seed: torch.Tensor, num_rows: int, hidden_size: int, dropout_p: float
) -> torch.Tensor:
    """bool [N, H]: which elements dropout keeps. A function of seed and position only.

    Element (n, h) is word h % 4 of Philox4x32-10 with the key seed[0] and the counter
    (n * ceil(H / 4) + h // 4, seed[1]), both as two 32-bit words, the low one first. It is kept if
    that word is at least floor(dropout_p * 2**32). Source: Salmon et al., Parallel random numbers:
    as easy as 1, 2, 3 (2011).
    """
    groups = -(-hidden_size // 4)
    position = torch.arange(num_rows * groups, dtype=torch.int64)
    key_low, key_high = (int(word) for word in _words(seed[0].cpu()))
    counter = [*_words(position), *(word.expand_as(position) for word in _words(seed[1].cpu()))]
    for _ in range(PHILOX_ROUNDS):
        high_0, low_0 = _product(PHILOX_MULTIPLIERS[0], counter[0])
        high_1, low_1 = _product(PHILOX_MULTIPLIERS[1], counter[2])
        counter = [high_1 ^ counter[1] ^ key_low, low_1, high_0 ^ counter[3] ^ key_high, low_0]
        key_low = (key_low + PHILOX_KEY_STEPS[0]) & UINT32
        key_high = (key_high + PHILOX_KEY_STEPS[1]) & UINT32
    words_NH = torch.stack(counter, dim=-1).reshape(num_rows, groups * 4)[:, :hidden_size]
    return words_NH >= int(dropout_p * 2**32)


def _words(number: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The low and the high 32 bits of int64 numbers."""
    return number & UINT32, (number >> 32) & UINT32


def _product(multiplier: int, words: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The high and the low 32 bits of 32-bit products, by halves: int64 would overflow."""
    low = multiplier * (words & 0xFFFF)
    high = multiplier * (words >> 16) + (low >> 16)
    return high >> 16, ((high & 0xFFFF) << 16) | (low & 0xFFFF)


def _linear(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """In hidden's dtype; parameters may be fp32 beside 16 bits."""
    return F.linear(
        hidden, weight.to(hidden.dtype), bias if bias is None else bias.to(hidden.dtype)
    )


def _scattered(
    logits_MV: torch.Tensor,
    labels_N: torch.Tensor,
    rows_M: torch.Tensor,
    row_weight_N: torch.Tensor | None,
    label_smoothing: float,
    z_loss: float,
    softcap: float,
    scale: float,
    reduction: str,
) -> CrossEntropy:
    """The losses of the rows with a target, put back among N rows of zeros."""
    if logits_MV.dtype != torch.float64:
        logits_MV = logits_MV.float()
    if softcap > 0:
        logits_MV = softcap * torch.tanh(logits_MV / softcap)
    labels_M = labels_N.index_select(0, rows_M).long()
    is_class_M = (labels_M >= 0) & (labels_M < logits_MV.shape[1])
    labels_M = labels_M.where(is_class_M, 0)  # the loss will be NaN: on CUDA nobody has looked
    lse_M = logits_MV.logsumexp(dim=-1)
    log_p_MV = logits_MV.log_softmax(dim=-1)  # not logits - lse: a large lse is rounded
    loss_M = -log_p_MV.gather(1, labels_M[:, None]).squeeze(1).where(is_class_M, torch.nan)
    if label_smoothing > 0:
        uniform_M = -log_p_MV.mean(dim=-1)
        loss_M = (1 - label_smoothing) * loss_M + label_smoothing * uniform_M
    if z_loss > 0:
        loss_M = loss_M + z_loss * lse_M**2
    if row_weight_N is not None:
        loss_M = loss_M * row_weight_N.index_select(0, rows_M)
    zeros_N = torch.zeros(labels_N.shape, dtype=logits_MV.dtype, device=logits_MV.device)
    loss_N = zeros_N.index_copy(0, rows_M, loss_M)
    lse_N = zeros_N.index_copy(0, rows_M, lse_M.detach())
    if reduction == "none":
        return CrossEntropy(None, loss_N, lse_N)
    return CrossEntropy(loss_N.sum() * scale, loss_N.detach(), lse_N)


def _predictions(
    logits_MV: torch.Tensor, labels_N: torch.Tensor, rows_M: torch.Tensor
) -> torch.Tensor:
    masked_N = torch.full(labels_N.shape, -1, dtype=torch.int64, device=logits_MV.device)
    return masked_N.index_copy(0, rows_M, logits_MV.detach().argmax(dim=-1))
