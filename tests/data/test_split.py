"""What a prepared split knows of its rows and records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from prepared import prepare_split

from bigft.data.records import Record, Row
from bigft.tasks.text_rows import text_row


def encode(record: Record) -> list[Row]:
    """Record i has i % 3 + 1 windows."""
    windows = record.index % 3 + 1
    return [text_row(record.index, window, windows, [1], [1]) for window in range(windows)]


def texts(*said: dict[str, Any]) -> list[Record]:
    return [Record(index, fields, "f", index + 1) for index, fields in enumerate(said)]


def test_rows_and_records_know_which_of_the_files_they_are_from(tmp_path: Path) -> None:
    places = [*(("a", line) for line in range(1, 151)), ("b", 1), ("b", 1), ("c", 1), ("c", 1)]
    places += [("c", 7), ("c", 2), ("a", 1)]  # c a second time
    source = [Record(index, {}, file, line) for index, (file, line) in enumerate(places)]
    split = prepare_split(tmp_path, "train", source, encode)
    expected = [0] * 150 + [1, 1, 2, 2, 2, 3, 4]
    assert split.file_of_record.tolist() == expected
    assert split.source_of_row(["c", "x", "a", "b"]).tolist() == [
        {"c": 0, "a": 2, "b": 3}[record.file] for record in source for _ in encode(record)
    ]


def test_records_that_say_the_same_have_one_hash_in_every_split(tmp_path: Path) -> None:
    train = texts({"tokens": ["a", "b"], "tags": ["O", "O"]}, {"text": "a", "n": 1, "id": 7})
    test = texts(
        {"tokens": ["a", "b"], "tags": ["O", "X"]},
        {"tokens": ["a b"], "tags": ["O"]},
        {"n": 1, "text": "a"},
        {"n": 2, "text": "a"},
    )
    first = prepare_split(tmp_path, "train", train, encode).content_of_record
    other = prepare_split(tmp_path, "test", test, encode).content_of_record
    assert np.isin(other, first).tolist() == [True, False, True, False]
    assert len({*first.tolist(), *other.tolist()}) == 4
