"""Packed rows: which samples share one, and the row that they become."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bigft import _host
from bigft.data.records import Row

Ids = NDArray[np.int64]
Strategy = Literal["first_fit_decreasing", "length_ordered"]

# (lengths, capacity, window) -> row number of each sample
PACKERS: dict[Strategy, Callable[[Ids, int, int], Ids]] = {
    "first_fit_decreasing": _host.pack_first_fit_decreasing,
    "length_ordered": _host.pack_length_ordered,
}


def join(rows: Sequence[Row]) -> Row:
    """The rows one after the other in one, which keeps them as `parts`.

    A row of one has a part as well: so a task sees by `parts` that rows are packed. Labels are
    aligned when a sample is encoded, so none of them looks into the next sample.
    """
    first = rows[0]
    return Row(
        record=first.record,
        window=first.window,
        num_windows=first.num_windows,
        length=sum(row.length for row in rows),
        num_targets=sum(row.num_targets for row in rows),
        columns={
            name: [value for row in rows for value in row.columns[name]] for name in first.columns
        },
        lost_targets=sum(row.lost_targets for row in rows),
        parts=tuple(rows),
    )
