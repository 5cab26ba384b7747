"""Rows of a language model as tensors: padded, or packed with positions that restart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bigft.data.records import IGNORE_INDEX, Batch, Row
from bigft.tasks.text_rows import input_ids, labels, text_batch


def collate(rows: Sequence[Row], pad_token_id: int, *, flatten: bool = False) -> Batch:
    """The rows side by side, padded at the right to the longest.

    Rows without parts get an attention_mask. If one has parts, every row gets position_ids that
    restart at 0 in each sample and in the padding, and no mask: transformers then lets no sample
    see another (masking_utils.find_packed_sequence_indices).

    flatten: packed rows as one row of all their tokens, without padding: what flash attention
        takes, which knows where a sample begins by its position 0.
    """
    packed = any(row.parts for row in rows)
    lengths = [row.length for row in rows]
    if packed and flatten:
        shape, starts = (1, sum(lengths)), [0, *np.cumsum(lengths[:-1]).tolist()]
    else:
        shape = (len(rows), max(lengths))
        starts = [place * shape[1] for place in range(len(rows))]
    input_ids_BT = np.full(shape, pad_token_id, dtype=np.int64)
    labels_BT = np.full(shape, IGNORE_INDEX, dtype=np.int64)
    ids_N, labels_N = input_ids_BT.reshape(-1), labels_BT.reshape(-1)  # views
    for start, row in zip(starts, rows, strict=True):
        ids_N[start : start + row.length] = input_ids(row)
        labels_N[start : start + row.length] = labels(row)
    inputs = {"input_ids": input_ids_BT}
    if packed:
        inputs["position_ids"] = _positions(rows, starts, shape)
    else:
        columns_T = np.arange(shape[1])
        inputs["attention_mask"] = (columns_T < np.array(lengths)[:, None]).astype(np.int64)
    return text_batch(rows, inputs, labels_BT)


def _positions(
    rows: Sequence[Row], starts: Sequence[int], shape: tuple[int, int]
) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    position_ids_BT = np.empty(shape, dtype=np.int64)
    positions_N = position_ids_BT.reshape(-1)
    ends = [*starts[1:], len(positions_N)]
    for start, end, row in zip(starts, ends, rows, strict=True):
        lengths = [sample.length for sample in row.samples]
        padding = end - start - row.length
        positions_N[start:end] = np.concatenate([np.arange(n) for n in (*lengths, padding)])
    return position_ids_BT
