"""What is noted of records, and of their rows, is counted once per kind."""

from __future__ import annotations

from pathlib import Path

from prepared import prepare_split

from bigft.data.records import Record, Row
from bigft.tasks.text_rows import text_row


def encode(record: Record) -> list[Row]:
    """A row of the fourth record has a note of its own."""
    notes = ("row",) if record.index == 3 else ()
    return [text_row(record.index, 0, 1, [1], [1], notes=notes)]


def test_notes_of_records_are_counted_by_kind_and_name_the_first(tmp_path: Path) -> None:
    noted = [("odd",) * (number % 2) + ("eighth",) * (number == 8) for number in range(10)]
    records = [
        Record(number, {"text": "x"}, "a.txt", number + 1, notes)
        for number, notes in enumerate(noted)
    ]
    for _ in range(2):  # parts that are there already count too
        split = prepare_split(tmp_path, "train", records, encode)
        counted = {note: (count, first.where) for note, (count, first) in split.notes().items()}
        assert counted == {"odd": (5, "a.txt:2"), "eighth": (1, "a.txt:9"), "row": (1, "a.txt:4")}
    assert split.num_records == 10
