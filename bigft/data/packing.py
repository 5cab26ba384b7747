"""Packed rows: which samples share one, and the Feature that they become."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bigft import _host
from bigft.data.records import Feature

Ids = NDArray[np.int64]
Strategy = Literal["first_fit_decreasing", "length_ordered"]

# (lengths, capacity, window) -> row number of each sample
PACKERS: dict[Strategy, Callable[[Ids, int, int], Ids]] = {
    "first_fit_decreasing": _host.pack_first_fit_decreasing,
    "length_ordered": _host.pack_length_ordered,
}


def join(features: Sequence[Feature]) -> Feature:
    """The features one after the other in one row, which keeps them as `parts`.

    A row of one has a part as well: so a task sees by `parts` that rows are packed. Labels are
    shifted when a sample is encoded, so none of them looks into the next sample.
    """
    first = features[0]
    return Feature(
        record=first.record,
        window=first.window,
        num_windows=first.num_windows,
        input_ids_T=[token for feature in features for token in feature.input_ids_T],
        labels_T=[label for feature in features for label in feature.labels_T],
        columns={
            name: [number for feature in features for number in feature.columns[name]]
            for name in first.columns
        },
        lost_targets=sum(feature.lost_targets for feature in features),
        parts=tuple(features),
    )
