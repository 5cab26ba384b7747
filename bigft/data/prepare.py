"""Records and their encoded Features in memory-mapped Arrow files: written once, read by all.

    <directory>/<split>-<part>-records.arrow  <split>-<part>-features.arrow

A part is a run of records: what one process encodes at a time, and what a preparation that was
killed need not encode again. `bigft.data.cache` decides in which directory, and that it appears
whole or not at all.
"""

from __future__ import annotations

import json
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from hashlib import blake2b
from itertools import accumulate, chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bigft.config.errors import BadInput, Problem, collect
from bigft.data.cache import appearing
from bigft.data.records import Feature, Record
from bigft.data.workers import map_in_order, num_cores

Encode = Callable[[Record], list[Feature]]

# What comes first ends a part, so that its size is bounded whatever a record's is.
RECORDS_PER_PART = 8192
CHARACTERS_PER_PART = 1 << 22
# The same of an Arrow record batch: only so much is ever held as Python's own numbers.
ROWS_PER_BATCH = 1024
TOKENS_PER_BATCH = 1 << 18

MAX_PROBLEMS = 20
FIELDS = json.JSONEncoder(default=str)  # the dates of a Parquet file become text
COLUMN_PREFIX = "columns."
RECORD_SCHEMA = pa.schema(
    {
        "index": pa.int32(),
        "source": pa.int32(),
        "file": pa.dictionary(pa.int32(), pa.binary()),
        "line": pa.int32(),
        "fields": pa.string(),
        "notes": pa.list_(pa.string()),
    }
)


class PreparedSplit:
    """The Features and Records of one split, memory-mapped; len() counts the features (rows).

    lengths, num_targets, lost_targets, record_of_row: int64, one per row.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self._features = _ArrowRows(_paths(directory, name, "features"))
        self._records = _ArrowRows(_paths(directory, name, "records"))
        self.lengths = self._features.numbers("length")
        self.num_targets = self._features.numbers("num_targets")
        self.lost_targets = self._features.numbers("lost_targets")
        self.record_of_row = self._features.numbers("record")

    def __len__(self) -> int:
        return len(self._features)

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
        named = np.array([files.index(self.record(int(first)).file) for first in firsts])
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

    def feature(self, index: int) -> Feature:
        batch, row = self._features.locate(index)

        def numbers(name: str) -> list[int]:
            values: list[int] = batch.column(name)[row].values.to_numpy().tolist()
            return values

        return Feature(
            record=batch.column("record")[row].as_py(),
            window=batch.column("window")[row].as_py(),
            num_windows=batch.column("num_windows")[row].as_py(),
            input_ids_T=numbers("input_ids"),
            labels_T=numbers("labels"),
            columns={
                name.removeprefix(COLUMN_PREFIX): numbers(name)
                for name in batch.schema.names
                if name.startswith(COLUMN_PREFIX)
            },
            lost_targets=batch.column("lost_targets")[row].as_py(),
        )

    def record(self, index: int) -> Record:
        batch, row = self._records.locate(index)
        return _records(batch.slice(row, 1))[0]


def prepare_split(
    directory: Path,
    name: str,
    records: Iterable[Record],
    encode: Encode,
    num_workers: int | None = None,
) -> PreparedSplit:
    """Writes one split: its records and, encoded, its features, both in the order of `records`.

    Parts of the same records that lie in `directory` already are not encoded again.

    records: their indices count from 0. A few parts per process are held in memory at a time.
    num_workers: processes that encode, if there is more than one part; None: one per core.
    Raises BadInput with what `records` refuses and the first 20 problems of `encode` over all
    records, or for an empty split; Interrupted if a process that encodes is killed.
    """
    refused: list[Problem] = []
    problems: list[Problem] = []
    num_parts = 0

    def missing_parts() -> Iterator[_Part]:
        nonlocal num_parts
        for part in _parts(records, refused):
            num_parts += 1
            if not _is_there(directory, name, part):
                yield part

    work = partial(_encode_part, directory, name, encode)
    with closing(map_in_order(work, missing_parts(), num_workers or num_cores())) as outcomes:
        for found in outcomes:
            problems = list(dict.fromkeys([*problems, *found]))
            if len(problems) >= MAX_PROBLEMS:
                raise BadInput(problems[:MAX_PROBLEMS])
    if refused or problems:
        raise BadInput([*refused, *problems])
    _remove_behind(directory, name, num_parts)
    split = PreparedSplit(directory, name)
    if not len(split):
        raise BadInput(Problem(name, "has no sample", "give a file with at least one record"))
    return split


class _ArrowRows:
    """Arrow IPC files, memory-mapped, whose rows are found by number, counted over all of them."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._batches: list[pa.RecordBatch] = []
        for path in paths:
            with pa.memory_map(str(path)) as mapped:  # closed, or every part would cost a file
                reader = pa.ipc.open_file(mapped)
                self._batches += map(reader.get_batch, range(reader.num_record_batches))
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
            values[start : start + batch.num_rows] = batch.column(name).to_numpy()
        return values

    def values(self, name: str) -> Iterator[Any]:
        for batch in self._batches:
            yield from batch.column(name).to_pylist()


class _Part(NamedTuple):
    number: int
    records: pa.RecordBatch


def _path(directory: Path, name: str, part: int, content: str) -> Path:
    return directory / f"{name}-{part:06}-{content}.arrow"


def _paths(directory: Path, name: str, content: str) -> list[Path]:
    return sorted(directory.glob(f"{name}-*-{content}.arrow"))


def _parts(records: Iterable[Record], refused: list[Problem]) -> Iterator[_Part]:
    """What `records` refuses, at its end or before, is appended to `refused`."""
    number, size, source = 0, 0, -1
    file, line = "", 0
    rows: list[tuple[Any, ...]] = []
    with collect(refused):
        for record in records:
            if record.file != file or record.line < line:  # backwards: the same file once more
                source += 1
            file, line = record.file, record.line
            fields = FIELDS.encode(dict(record.fields))
            notes = list(record.notes)
            rows.append((record.index, source, os.fsencode(file), line, fields, notes))
            size += len(fields)
            if len(rows) == RECORDS_PER_PART or size >= CHARACTERS_PER_PART:
                yield _Part(number, _record_rows(rows))
                number, size, rows = number + 1, 0, []
    if rows:
        yield _Part(number, _record_rows(rows))


def _is_there(directory: Path, name: str, part: _Part) -> bool:
    """Whether a call that was killed left the part: its features appear last."""
    try:
        _ArrowRows([_path(directory, name, part.number, "features")])
        records, _ = _ArrowRows([_path(directory, name, part.number, "records")]).locate(0)
    except (OSError, pa.ArrowException):
        return False
    return bool(records.select(RECORD_SCHEMA.names).equals(part.records))


def _encode_part(directory: Path, name: str, encode: Encode, part: _Part) -> list[Problem]:
    """Writes the two files of the part, or returns why it cannot be."""
    problems: list[Problem] = []
    with (
        collect(problems),
        appearing(_path(directory, name, part.number, "features")) as features_path,
        appearing(_path(directory, name, part.number, "records")) as records_path,
    ):
        records = _records(part.records)
        notes: dict[int, list[str]] = {record.index: [] for record in records}
        batches = _feature_batches(_noted(_features(records, encode), notes))
        first = next(batches, _feature_rows([]))
        with pa.ipc.new_file(str(features_path), first.schema) as file:
            for batch in chain([first], batches):
                file.write_batch(batch)
        contents = pa.array([_content(record.fields) for record in records], pa.int64())
        whole = part.records.append_column("content", contents)
        distinct = [list(dict.fromkeys(each)) for each in notes.values()]
        whole = whole.append_column("row_notes", pa.array(distinct, pa.list_(pa.string())))
        with pa.ipc.new_file(str(records_path), whole.schema) as file:
            file.write_batch(whole)
    return problems


def _features(records: Iterable[Record], encode: Encode) -> Iterator[Feature]:
    """Raises BadInput with the first 20 problems, at the last of them or at its end."""
    problems: list[Problem] = []
    for record in records:
        with collect(problems):
            yield from encode(record)
        problems = list(dict.fromkeys(problems))  # of a key, which every record meets, once
        if len(problems) >= MAX_PROBLEMS:
            break
    if problems:
        raise BadInput(problems)


def _noted(features: Iterable[Feature], notes: dict[int, list[str]]) -> Iterator[Feature]:
    """The features; their notes are appended to those of their records."""
    for feature in features:
        notes[feature.record] += feature.notes
        yield feature


def _feature_batches(features: Iterable[Feature]) -> Iterator[pa.RecordBatch]:
    rows: list[Feature] = []
    num_tokens = 0
    for feature in features:
        rows.append(feature)
        num_tokens += feature.length
        if len(rows) == ROWS_PER_BATCH or num_tokens >= TOKENS_PER_BATCH:
            yield _feature_rows(rows)
            rows, num_tokens = [], 0
    if rows:
        yield _feature_rows(rows)


def _feature_rows(features: Sequence[Feature]) -> pa.RecordBatch:
    number, numbers = pa.int32(), pa.list_(pa.int32())
    arrays = {
        "record": pa.array([feature.record for feature in features], number),
        "window": pa.array([feature.window for feature in features], number),
        "num_windows": pa.array([feature.num_windows for feature in features], number),
        "length": pa.array([feature.length for feature in features], number),
        "num_targets": pa.array([feature.num_targets for feature in features], number),
        "lost_targets": pa.array([feature.lost_targets for feature in features], number),
        "input_ids": pa.array([feature.input_ids_T for feature in features], numbers),
        "labels": pa.array([feature.labels_T for feature in features], numbers),
    }
    for name in sorted(features[0].columns) if features else ():  # sorted: one schema for all
        values = [feature.columns[name] for feature in features]
        arrays[COLUMN_PREFIX + name] = pa.array(values, numbers)
    return pa.RecordBatch.from_pydict(arrays)


def _record_rows(rows: Sequence[tuple[Any, ...]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        dict(zip(RECORD_SCHEMA.names, map(list, zip(*rows, strict=True)), strict=True)),
        schema=RECORD_SCHEMA,
    )


def _records(batch: pa.RecordBatch) -> list[Record]:
    names = ("index", "fields", "file", "line")
    columns = [batch.column(name).to_pylist() for name in names]
    return [
        Record(index, json.loads(fields), os.fsdecode(file), line)
        for index, fields, file, line in zip(*columns, strict=True)
    ]


def _content(fields: Mapping[str, Any]) -> int:
    said = fields.get("tokens") or {name: fields[name] for name in fields if name != "id"}
    text = json.dumps(said, sort_keys=True)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), signed=True)


def _remove_behind(directory: Path, name: str, num_parts: int) -> None:
    """A data set that has become shorter since a call that was killed leaves parts too many."""
    for content in ("features", "records"):
        for path in _paths(directory, name, content)[num_parts:]:
            path.unlink()
