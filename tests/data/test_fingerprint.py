"""The same values have the same fingerprint, however they are stored; other values another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from prepared import prepare_split

from bigft.data import prepare
from bigft.data.fingerprint import VERSION, content, content_by_files
from bigft.data.records import Record, Row
from bigft.data.split import PreparedSplit
from bigft.tasks.text_rows import text_row

LABELS = ["O", "B-PER"]


def encode(record: Record) -> list[Row]:
    n = record.index % 4 + 1
    columns = {"words": [0] * n}
    return [text_row(record.index, 0, 1, list(range(n)), [1, -100, 1, 1][:n], columns)]


def split_of(place: Path, encode: Callable[[Record], list[Row]] = encode) -> PreparedSplit:
    place.mkdir()
    records = [Record(index, {"tokens": ["a"]}, str(place / "f"), index + 1) for index in range(50)]
    return prepare_split(place, "train", records, encode, 1)


def test_it_depends_neither_on_places_nor_on_how_rows_are_cut_into_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = content(split_of(tmp_path / "one"), LABELS)
    monkeypatch.setattr(prepare, "RECORDS_PER_PART", 7)
    monkeypatch.setattr(prepare, "ROWS_PER_BATCH", 3)
    assert content(split_of(tmp_path / "many"), LABELS) == whole
    assert whole.startswith(VERSION)


def changed(name: str, value: Any) -> Callable[[Record], list[Row]]:
    def encode_otherwise(record: Record) -> list[Row]:
        (row,) = encode(record)
        if record.index != 30:
            return [row]
        if name in row.columns:
            return [replace(row, columns=row.columns | {name: value})]
        return [replace(row, **{name: value})]

    return encode_otherwise


@pytest.mark.parametrize(
    ("name", "value"),
    [("input_ids", [0, 1, 3]), ("labels", [1, -100, 0]), ("words", [0, 1, 0]), ("length", 9)],
)
def test_every_value_counts(name: str, value: Any, tmp_path: Path) -> None:
    one, other = split_of(tmp_path / "a"), split_of(tmp_path / "b", changed(name, value))
    assert content(one, LABELS) != content(other, LABELS)
    assert content(one, LABELS) != content(one, [*LABELS, "B-LOC"])


def test_a_border_between_rows_counts(tmp_path: Path) -> None:
    def two(first: int) -> Callable[[Record], list[Row]]:
        return lambda record: [
            Row(record.index, 0, 2, 1, 1, {"ids": [1] * first}),
            Row(record.index, 1, 2, 1, 1, {"ids": [1] * (4 - first)}),
        ]

    assert content(split_of(tmp_path / "a", two(1)), []) != content(
        split_of(tmp_path / "b", two(2)), []
    )


def real_valued(record: Record) -> list[Row]:
    return [Row(record.index, 0, 1, 1, 1, {"score": [record.index / 3]})]


def test_real_numbers_are_stored_and_count_to_the_last_bit(tmp_path: Path) -> None:
    split = split_of(tmp_path / "a", real_valued)
    assert split.row(7).columns == {"score": [7 / 3]}
    other = split_of(tmp_path / "b", changed_score)
    assert content(split, []) != content(other, [])


def test_a_column_is_of_real_numbers_where_one_value_is(tmp_path: Path) -> None:
    def mixed(record: Record) -> list[Row]:
        return [Row(record.index, 0, 1, 1, 1, {"y": [1, np.float32(0.5)], "n": [2**31 - 1]})]

    assert split_of(tmp_path / "a", mixed).row(3).columns == {"y": [1.0, 0.5], "n": [2**31 - 1]}


def test_an_integer_that_does_not_fit_is_no_other_number(tmp_path: Path) -> None:
    with pytest.raises(pa.ArrowInvalid, match="Integer value 2147483648"):
        split_of(tmp_path / "a", lambda r: [Row(r.index, 0, 1, 1, 1, {"n": [2**31]})])


def changed_score(record: Record) -> list[Row]:
    (row,) = real_valued(record)
    return [replace(row, columns={"score": [row.columns["score"][0] * (1 + 2**-52)]})]


def test_a_checkpoint_of_an_older_version_names_its_data_by_the_bytes_of_its_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are written here as bigft wrote them before rows had columns only."""
    monkeypatch.setattr(prepare, "RECORDS_PER_PART", 20)
    monkeypatch.setattr(prepare, "ROWS_PER_BATCH", 8)
    split = split_of(tmp_path / "new")
    digest = hashlib.sha256(json.dumps(LABELS).encode())
    for part in (range(20), range(20, 40), range(40, 50)):
        path = tmp_path / "old.arrow"
        batches = [_as_it_was(part[at : at + 8]) for at in range(0, len(part), 8)]
        with pa.ipc.new_file(str(path), batches[0].schema) as file:
            for batch in batches:
                file.write_batch(batch)
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    assert content_by_files(split, LABELS) == digest.hexdigest()


def _as_it_was(indices: range) -> pa.RecordBatch:
    rows = [encode(Record(index, {}, "f", 1))[0] for index in indices]
    number, numbers = pa.int32(), pa.list_(pa.int32())
    return pa.RecordBatch.from_pydict(
        {
            "record": pa.array([row.record for row in rows], number),
            "window": pa.array([row.window for row in rows], number),
            "num_windows": pa.array([row.num_windows for row in rows], number),
            "length": pa.array([row.length for row in rows], number),
            "num_targets": pa.array([row.num_targets for row in rows], number),
            "lost_targets": pa.array([row.lost_targets for row in rows], number),
            "input_ids": pa.array([row.columns["input_ids"] for row in rows], numbers),
            "labels": pa.array([row.columns["labels"] for row in rows], numbers),
            "columns.words": pa.array([row.columns["words"] for row in rows], numbers),
        }
    )
