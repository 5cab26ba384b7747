"""A packed row is its samples one after the other."""

from __future__ import annotations

from bigft.data.packing import join
from bigft.data.records import IGNORE_INDEX, Feature

FIRST = Feature(7, 1, 2, [5, 6, 7], [6, 7, IGNORE_INDEX], {"words": [0, 0, 1]}, lost_targets=2)
SECOND = Feature(3, 0, 1, [8, 9], [9, IGNORE_INDEX], {"words": [0, 1]}, lost_targets=1)


def test_a_row_is_its_parts_one_after_the_other() -> None:
    row = join([FIRST, SECOND])
    assert row.input_ids_T == [5, 6, 7, 8, 9]
    assert row.labels_T == [6, 7, IGNORE_INDEX, 9, IGNORE_INDEX]
    assert row.columns == {"words": [0, 0, 1, 0, 1]}
    assert row.lost_targets == 3
    assert (row.length, row.num_targets) == (5, 3)
    assert row.samples == (FIRST, SECOND)


def test_a_row_of_one_has_a_part_too() -> None:
    row = join([FIRST])
    assert (row.record, row.window, row.num_windows) == (7, 1, 2)
    assert row.parts == (FIRST,)


def test_the_parts_are_not_changed() -> None:
    row = join([FIRST, SECOND])
    row.input_ids_T.append(1)
    row.columns["words"].append(1)
    assert FIRST.input_ids_T == [5, 6, 7]
    assert join([FIRST]).input_ids_T is not FIRST.input_ids_T
    assert FIRST.columns == {"words": [0, 0, 1]}
