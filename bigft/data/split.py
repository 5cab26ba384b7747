"""One prepared split: Records and Rows in memory-mapped Arrow files, read by all.

    <directory>/<split>-<part>-records.arrow  <split>-<part>-rows.arrow

`bigft.data.prepare` writes them.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bigft.data.records import Record, Row

COLUMN_PREFIX = "columns."  # of the task's own columns
Content = Literal["records", "rows"]


class PreparedSplit:
    """The Rows and Records of one split, memory-mapped; len() counts the rows.

    lengths, num_targets, lost_targets, record_of_row: int64, one per row.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self.name = name
        self._rows = ArrowRows(part_paths(directory, name, "rows"))
        self._records = ArrowRows(part_paths(directory, name, "records"))
        self.lengths = self._rows.numbers("length")
        self.num_targets = self._rows.numbers("num_targets")
        self.lost_targets = self._rows.numbers("lost_targets")
        self.record_of_row = self._rows.numbers("record")

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def num_records(self) -> int:
        return len(self._records)

    @property
    def file_of_record(self) -> NDArray[np.int64]:
        """The 0-based number of the file that a record came from, in the order of the config.

        Files that are read together count as one; so does a data set of the hub.
        """
        return self._records.numbers("source")

    def source_of_row(self, files: Sequence[str]) -> NDArray[np.int64]:
        """For each row the number of the file, among those named, that its record came from."""
        numbers, firsts = np.unique(self.file_of_record, return_index=True)
        first_files = [self.record(int(first)).file for first in firsts]
        named = np.array([_place(file, files) for file in first_files])
        return named[np.searchsorted(numbers, self.file_of_record)][self.record_of_row]

    @property
    def content_of_record(self) -> NDArray[np.int64]:
        """A hash of what a record says, whatever its labels and its `id`: equal for equal ones."""
        return self._records.numbers("content")

    def notes(self) -> dict[str, tuple[int, Record]]:
        """For each note of a record or of its rows: how many records have it, and the first one."""
        found: dict[str, list[int]] = {}
        of_records = zip(
            self._records.values("notes"), self._records.values("row_notes"), strict=True
        )
        for index, (read, encoded) in enumerate(of_records):
            for note in (*read, *encoded):
                found.setdefault(note, [0, index])[0] += 1
        return {note: (count, self.record(first)) for note, (count, first) in found.items()}

    def row(self, index: int) -> Row:
        batch, place = self._rows.locate(index)

        def number(name: str) -> int:
            value: int = batch.column(name)[place].as_py()
            return value

        return Row(
            record=number("record"),
            window=number("window"),
            num_windows=number("num_windows"),
            length=number("length"),
            num_targets=number("num_targets"),
            columns={
                name.removeprefix(COLUMN_PREFIX): to_numpy(
                    batch.column(name)[place].values
                ).tolist()
                for name in batch.schema.names
                if name.startswith(COLUMN_PREFIX)
            },
            lost_targets=number("lost_targets"),
        )

    def sizes(self, column: str) -> NDArray[np.int64]:
        """How many values of that column each row has."""
        return self._rows.sizes(COLUMN_PREFIX + column)

    def values(self, column: str) -> NDArray[Any]:
        """Those of all rows, one behind the other."""
        found = [
            to_numpy(batch.column(COLUMN_PREFIX + column).flatten())
            for batches in self.files()
            for batch in batches
        ]
        return np.concatenate(found)

    def files(self) -> list[list[pa.RecordBatch]]:
        """The rows as they are stored, file by file: their numbers, and the task's columns."""
        return self._rows.files

    def record(self, index: int) -> Record:
        batch, row = self._records.locate(index)
        return records_in(batch.slice(row, 1))[0]


class ArrowRows:
    """Arrow IPC files, memory-mapped, whose rows are found by number, counted over all of them."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.files: list[list[pa.RecordBatch]] = []
        for path in paths:
            with pa.memory_map(str(path)) as mapped:  # closed, or every part would cost a file
                reader = pa.ipc.open_file(mapped)
                self.files.append(
                    [reader.get_batch(number) for number in range(reader.num_record_batches)]
                )
        self._batches = [batch for file in self.files for batch in file]
        sizes = [batch.num_rows for batch in self._batches]
        self._starts: list[int] = list(accumulate(sizes, initial=0))

    def __len__(self) -> int:
        return self._starts[-1]

    def locate(self, index: int) -> tuple[pa.RecordBatch, int]:
        place = bisect_right(self._starts, index) - 1
        return self._batches[place], index - self._starts[place]

    def numbers(self, name: str) -> NDArray[np.int64]:
        values = np.empty(len(self), np.int64)
        for start, batch in zip(self._starts, self._batches, strict=False):
            values[start : start + batch.num_rows] = to_numpy(batch.column(name))
        return values

    def sizes(self, name: str) -> NDArray[np.int64]:
        counts = [to_numpy(batch.column(name).value_lengths()) for batch in self._batches]
        return np.concatenate(counts).astype(np.int64)

    def values(self, name: str) -> Iterator[Any]:
        for batch in self._batches:
            yield from batch.column(name).to_pylist()


def _place(file: str, named: Sequence[str]) -> int:
    """Which of the named files, or folders, the file is, or is in."""
    return next(
        at for at, one in enumerate(named) if file == one or one in map(str, Path(file).parents)
    )


def to_numpy(numbers: pa.Array) -> NDArray[Any]:
    """The numbers, none of them null, without a copy. Arrow's own method imports pandas first."""
    return np.from_dlpack(numbers)


def part_path(directory: Path, name: str, part: int, content: Content) -> Path:
    return directory / f"{name}-{part:06}-{content}.arrow"


def part_paths(directory: Path, name: str, content: Content) -> list[Path]:
    return sorted(directory.glob(f"{name}-*-{content}.arrow"))


def records_in(batch: pa.RecordBatch) -> list[Record]:
    names = ("index", "fields", "file", "line")
    columns = [batch.column(name).to_pylist() for name in names]
    return [
        Record(index, json.loads(fields), os.fsdecode(file), line)
        for index, fields, file, line in zip(*columns, strict=True)
    ]
