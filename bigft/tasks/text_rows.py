"""Rows of texts: token ids and labels among a Row's columns, and batches of them, padded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from bigft.data.records import IGNORE_INDEX, Batch, Row

Ids = NDArray[np.int64]


def text_row(
    record: int,
    window: int,
    num_windows: int,
    input_ids_T: list[int],
    labels_T: list[int],
    columns: Mapping[str, list[int]] | None = None,
    lost_targets: int = 0,
    notes: tuple[str, ...] = (),
) -> Row:
    """A Row whose length is that of its longer side, where labels are a text of their own.

    labels_T: class ids, IGNORE_INDEX where there is no target.  columns: further ones of the task.
    """
    return Row(
        record,
        window,
        num_windows,
        length=max(len(input_ids_T), len(labels_T)),
        num_targets=len(labels_T) - labels_T.count(IGNORE_INDEX),
        columns={"input_ids": input_ids_T, "labels": labels_T, **(columns or {})},
        lost_targets=lost_targets,
        notes=notes,
    )


def input_ids(row: Row) -> list[int]:
    return row.columns["input_ids"]


def labels(row: Row) -> list[int]:
    return row.columns["labels"]


def padded(rows: Sequence[Sequence[int]], value: int) -> Ids:
    """The rows side by side, [B, T] of the longest, padded with `value` at the right."""
    padded_BT = np.full((len(rows), max(map(len, rows))), value, dtype=np.int64)
    for padded_T, row in zip(padded_BT, rows, strict=True):
        padded_T[: len(row)] = row
    return padded_BT


def attention_mask(rows: Sequence[Sequence[int]]) -> Ids:
    """[B, T]: 1 where a row has tokens, 0 where it is padded."""
    return padded([[1] * len(row) for row in rows], 0)


def text_batch(
    rows: Sequence[Row], inputs: Mapping[str, Ids], labels_BT: Ids, size: int | None = None
) -> Batch:
    """size: real tokens; None: the sum of the rows' lengths."""
    import torch

    target_rows_M = np.flatnonzero(labels_BT.ravel() != IGNORE_INDEX)
    return Batch(
        {name: torch.from_numpy(value) for name, value in inputs.items()},
        torch.from_numpy(labels_BT),
        torch.from_numpy(target_rows_M),
        num_targets=len(target_rows_M),
        size=sum(row.length for row in rows) if size is None else size,
        rows=list(rows),
    )
