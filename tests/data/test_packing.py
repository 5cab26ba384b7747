"""A packed row is its samples one after the other."""

from __future__ import annotations

from bigft.data.packing import join
from bigft.data.records import IGNORE_INDEX
from bigft.tasks.text_rows import text_row

FIRST = text_row(7, 1, 2, [5, 6, 7], [6, 7, IGNORE_INDEX], {"words": [0, 0, 1]}, lost_targets=2)
SECOND = text_row(3, 0, 1, [8, 9], [9, IGNORE_INDEX], {"words": [0, 1]}, lost_targets=1)


def test_a_row_is_its_parts_one_after_the_other() -> None:
    row = join([FIRST, SECOND])
    assert row.columns["input_ids"] == [5, 6, 7, 8, 9]
    assert row.columns["labels"] == [6, 7, IGNORE_INDEX, 9, IGNORE_INDEX]
    assert row.columns["words"] == [0, 0, 1, 0, 1]
    assert row.lost_targets == 3
    assert (row.length, row.num_targets) == (5, 3)
    assert row.samples == (FIRST, SECOND)


def test_a_row_of_one_has_a_part_too() -> None:
    row = join([FIRST])
    assert (row.record, row.window, row.num_windows) == (7, 1, 2)
    assert row.parts == (FIRST,)


def test_the_parts_are_not_changed() -> None:
    row = join([FIRST, SECOND])
    row.columns["input_ids"].append(1)
    row.columns["words"].append(1)
    assert FIRST.columns["input_ids"] == [5, 6, 7]
    assert join([FIRST]).columns["input_ids"] is not FIRST.columns["input_ids"]
    assert FIRST.columns["words"] == [0, 0, 1]
