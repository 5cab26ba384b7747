"""What the readers note of records is told once per kind."""

from __future__ import annotations

from pathlib import Path

from bigft.data.prepare import prepare_split
from bigft.data.records import Feature, Record


def encode(record: Record) -> list[Feature]:
    return [Feature(record.index, 0, 1, [1], [1])]


def test_notes_of_records_are_counted_by_kind_and_name_the_first(tmp_path: Path) -> None:
    noted = [("odd",) * (number % 2) + ("eighth",) * (number == 8) for number in range(10)]
    records = [
        Record(number, {"text": "x"}, "a.txt", number + 1, notes)
        for number, notes in enumerate(noted)
    ]
    expected = [
        "5 of 10 records of train (first a.txt:2): odd",
        "1 of 10 records of train (first a.txt:9): eighth",
    ]
    for _ in range(2):  # parts that are there already count too
        notes: list[str] = []
        split = prepare_split(tmp_path, "train", records, encode, notes=notes)
        assert notes == expected
    assert split.num_records == 10
