"""Rows of texts as tensors, with labels of every kind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bigft.config.tasks import ProblemType
from bigft.data.records import IGNORE_INDEX, Batch, Row
from bigft.tasks.text_classification.fields import MULTI, REGRESSION
from bigft.tasks.text_rows import attention_mask, input_ids, padded

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedTokenizerBase


def collate(
    rows: Sequence[Row],
    tokenizer: PreTrainedTokenizerBase,
    problem_type: ProblemType,
    num_labels: int,
    are_windows: bool,
) -> Batch:
    """Labels are as the head documents them.

    are_windows: whether the rows are windows of texts: each of k weighs 1 / k.
    """
    import torch

    ids = [input_ids(row) for row in rows]
    inputs = {
        "input_ids": torch.from_numpy(padded(ids, tokenizer.pad_token_id)),
        "attention_mask": torch.from_numpy(attention_mask(ids)),
    }
    if "token_type_ids" in tokenizer.model_input_names:
        inputs["token_type_ids"] = torch.zeros_like(inputs["input_ids"])
        for types_T, row in zip(inputs["token_type_ids"], rows, strict=True):
            types = row.columns["types"]
            types_T[: len(types)] = torch.tensor(types)
    if are_windows:
        inputs["row_weight_B"] = torch.tensor([1 / row.num_windows for row in rows])
    labels = _labels(rows, problem_type, num_labels)
    is_target = ~labels.isnan() if labels.is_floating_point() else labels != IGNORE_INDEX
    return Batch(
        inputs,
        labels,
        is_target.ravel().nonzero()[:, 0],
        num_targets=sum(row.num_targets / row.num_windows for row in rows),
        size=sum(row.length for row in rows),
        rows=list(rows),
    )


def _labels(rows: Sequence[Row], problem_type: ProblemType, num_labels: int) -> torch.Tensor:
    """[B] int64, [B, C] int64, or [B] fp32 of a regression; of prompts no target."""
    import torch

    given = [row.columns["labels"] for row in rows]
    if problem_type == MULTI:
        none = [IGNORE_INDEX] * num_labels
        return torch.tensor([labels or none for labels in given], dtype=torch.int64)
    if problem_type == REGRESSION:
        return torch.tensor([labels[0] if labels else math.nan for labels in given])
    return torch.tensor([int(labels[0]) if labels else IGNORE_INDEX for labels in given])
