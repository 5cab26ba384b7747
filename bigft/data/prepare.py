"""Records and their encoded Rows in memory-mapped Arrow files: written once, read by all.

    <directory>/<split>-<part>-records.arrow  <split>-<part>-rows.arrow

A part is a run of records: what one process encodes at a time, and what a preparation that was
killed need not encode again. `bigft.data.cache` decides in which directory, and that it appears
whole or not at all.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from hashlib import blake2b
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from bigft.config.errors import BadInput, Problem, collect
from bigft.data.cache import appearing
from bigft.data.records import Note, Record, Row
from bigft.data.split import (
    COLUMN_PREFIX,
    ArrowRows,
    PreparedSplit,
    part_path,
    part_paths,
    records_in,
)
from bigft.data.workers import map_in_order, num_cores

Encoded = Sequence[Row | Note] | BadInput
"""Of a record its rows and what is to be said of it, or why it cannot be used."""
Encode = Callable[[Iterable[Record]], Iterator[Encoded]]
"""What is made of each record, in their order. A record may have no row: one that shares its rows
with those before it."""

# What comes first ends a part, so that its size is bounded whatever a record's is.
RECORDS_PER_PART = 8192
CHARACTERS_PER_PART = 1 << 22
# The same of an Arrow record batch: only so much is ever held as Python's own numbers.
ROWS_PER_BATCH = 1024
LENGTH_PER_BATCH = 1 << 18

MAX_PROBLEMS = 20
FIELDS = json.JSONEncoder(default=str)  # the dates of a Parquet file become text
SAID = json.JSONEncoder(sort_keys=True)
ROW_NUMBERS = ("record", "window", "num_windows", "length", "num_targets", "lost_targets")
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


def one_by_one(encode: Callable[[Record], list[Row]]) -> Encode:
    """What encodes a record and raises BadInput, as what encodes many."""

    def encode_all(records: Iterable[Record]) -> Iterator[Encoded]:
        for record in records:
            try:
                yield encode(record)
            except BadInput as refused:
                yield refused

    return encode_all


def encode_one(encode: Encode, record: Record) -> list[Row]:
    """The rows of one record, by what encodes many. Raises BadInput if it cannot be used."""
    (encoded,) = encode([record])
    if isinstance(encoded, BadInput):
        raise encoded
    return [each for each in encoded if isinstance(each, Row)]


def prepare_split(
    directory: Path,
    name: str,
    records: Iterable[Record],
    encode: Encode,
    num_workers: int | None = None,
) -> PreparedSplit:
    """Writes one split: its records and, encoded, its rows, both in the order of `records`.

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


class _Part(NamedTuple):
    number: int
    records: pa.RecordBatch


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
    """Whether a call that was killed left the part: its rows appear last."""
    try:
        ArrowRows([part_path(directory, name, part.number, "rows")])
        records, _ = ArrowRows([part_path(directory, name, part.number, "records")]).locate(0)
    except (OSError, pa.ArrowException):
        return False
    return bool(records.select(RECORD_SCHEMA.names).equals(part.records))


def _encode_part(directory: Path, name: str, encode: Encode, part: _Part) -> list[Problem]:
    """Writes the two files of the part, or returns why it cannot be."""
    problems: list[Problem] = []
    with (
        collect(problems),
        appearing(part_path(directory, name, part.number, "rows")) as rows_path,
        appearing(part_path(directory, name, part.number, "records")) as records_path,
    ):
        records = records_in(part.records)
        notes: dict[int, list[str]] = {record.index: [] for record in records}
        batches = _row_batches(_noted(_encoded(records, encode), notes))
        first = next(batches, _row_batch([]))
        with pa.ipc.new_file(str(rows_path), first.schema) as file:
            for batch in chain([first], batches):
                file.write_batch(batch)
        contents = pa.array([_content(record.fields) for record in records], pa.int64())
        whole = part.records.append_column("content", contents)
        distinct = [list(dict.fromkeys(each)) for each in notes.values()]
        whole = whole.append_column("row_notes", pa.array(distinct, pa.list_(pa.string())))
        with pa.ipc.new_file(str(records_path), whole.schema) as file:
            file.write_batch(whole)
    return problems


def _encoded(records: Iterable[Record], encode: Encode) -> Iterator[Row | Note]:
    """Raises BadInput with the first 20 problems, at the last of them or at its end."""
    problems: list[Problem] = []
    for rows in encode(records):
        if not isinstance(rows, BadInput):
            yield from rows
            continue
        # Of a key, which every record meets, once.
        problems = list(dict.fromkeys([*problems, *rows.problems]))
        if len(problems) >= MAX_PROBLEMS:
            break
    if problems:
        raise BadInput(problems)


def _noted(encoded: Iterable[Row | Note], notes: dict[int, list[str]]) -> Iterator[Row]:
    """The rows; notes are appended to those of their records."""
    for each in encoded:
        if isinstance(each, Note):
            notes[each.record].append(each.text)
        else:
            notes[each.record] += each.notes
            yield each


def _row_batches(rows: Iterable[Row]) -> Iterator[pa.RecordBatch]:
    held: list[Row] = []
    length = 0
    for row in rows:
        held.append(row)
        length += row.length
        if len(held) == ROWS_PER_BATCH or length >= LENGTH_PER_BATCH:
            yield _row_batch(held)
            held, length = [], 0
    if held:
        yield _row_batch(held)


def _row_batch(rows: Sequence[Row]) -> pa.RecordBatch:
    arrays = {
        name: pa.array([getattr(row, name) for row in rows], pa.int32()) for name in ROW_NUMBERS
    }
    for name in sorted(rows[0].columns) if rows else ():  # sorted: one schema for all
        arrays[COLUMN_PREFIX + name] = _lists([row.columns[name] for row in rows])
    return pa.RecordBatch.from_pydict(arrays)


def _lists(lists: Sequence[list[Any]]) -> pa.ListArray:
    """What pyarrow infers of such lists, integers as int32; it takes half as long again."""
    flat = list(chain.from_iterable(lists))
    try:
        values = pa.array(np.asarray(array("q", flat))).cast(pa.int32())
    except TypeError:  # real numbers
        values = pa.array(np.asarray(array("d", flat)))
    ends = np.cumsum([0, *map(len, lists)], dtype=np.int32)
    return pa.ListArray.from_arrays(ends, values)


def _record_rows(rows: Sequence[tuple[Any, ...]]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        dict(zip(RECORD_SCHEMA.names, map(list, zip(*rows, strict=True)), strict=True)),
        schema=RECORD_SCHEMA,
    )


def _content(fields: Mapping[str, Any]) -> int:
    said = fields.get("tokens") or {name: fields[name] for name in fields if name != "id"}
    text = SAID.encode(said)
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), signed=True)


def _remove_behind(directory: Path, name: str, num_parts: int) -> None:
    """A data set that has become shorter since a call that was killed leaves parts too many."""
    for content in ("rows", "records"):
        for path in part_paths(directory, name, content)[num_parts:]:
            path.unlink()
