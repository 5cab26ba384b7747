"""Rows of a language model as tensors: padded, or packed with positions that restart."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from bigft.data.records import IGNORE_INDEX, Batch, Feature


def collate(features: Sequence[Feature], pad_token_id: int, *, flatten: bool = False) -> Batch:
    """The rows side by side, padded at the right to the longest.

    Rows without parts get an attention_mask. If one has parts, every row gets position_ids that
    restart at 0 in each sample and in the padding, and no mask: transformers then lets no sample
    see another (masking_utils.find_packed_sequence_indices).

    flatten: packed rows as one row of all their tokens, without padding: what flash attention
        takes, which knows where a sample begins by its position 0.
    """
    import torch

    packed = any(feature.parts for feature in features)
    lengths = [feature.length for feature in features]
    if packed and flatten:
        shape, starts = (1, sum(lengths)), [0, *np.cumsum(lengths[:-1]).tolist()]
    else:
        shape = (len(features), max(lengths))
        starts = [row * shape[1] for row in range(len(features))]
    input_ids_BT = np.full(shape, pad_token_id, dtype=np.int64)
    labels_BT = np.full(shape, IGNORE_INDEX, dtype=np.int64)
    ids_N, labels_N = input_ids_BT.reshape(-1), labels_BT.reshape(-1)  # views
    for start, feature in zip(starts, features, strict=True):
        ids_N[start : start + feature.length] = feature.input_ids_T
        labels_N[start : start + feature.length] = feature.labels_T
    inputs = {"input_ids": input_ids_BT}
    if packed:
        inputs["position_ids"] = _positions(features, starts, shape)
    else:
        columns_T = np.arange(shape[1])
        inputs["attention_mask"] = (columns_T < np.array(lengths)[:, None]).astype(np.int64)
    target_rows_M = np.flatnonzero(labels_N != IGNORE_INDEX)
    return Batch(
        {name: torch.from_numpy(value) for name, value in inputs.items()},
        torch.from_numpy(labels_BT),
        torch.from_numpy(target_rows_M),
        num_targets=len(target_rows_M),
        num_tokens=sum(lengths),
        features=list(features),
    )


def _positions(
    features: Sequence[Feature], starts: Sequence[int], shape: tuple[int, int]
) -> np.ndarray[tuple[int, int], np.dtype[np.int64]]:
    position_ids_BT = np.empty(shape, dtype=np.int64)
    positions_N = position_ids_BT.reshape(-1)
    ends = [*starts[1:], len(positions_N)]
    for start, end, feature in zip(starts, ends, features, strict=True):
        lengths = [sample.length for sample in feature.samples]
        padding = end - start - feature.length
        positions_N[start:end] = np.concatenate([np.arange(n) for n in (*lengths, padding)])
    return position_ids_BT
