"""Records and their encoded Features in memory-mapped Arrow files: written once, read by all.

    <directory>/<split>-features.arrow  <split>-records.arrow

`bigft.data.cache` decides in which directory, and that it appears whole or not at all.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import threading
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from itertools import accumulate, islice
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bigft.config.errors import BadInput, Problem
from bigft.data.cache import cache_root, fingerprint, prepared
from bigft.data.records import Feature, Record

__all__ = ["PreparedSplit", "cache_root", "fingerprint", "prepare_split", "prepared"]

Encode = Callable[[Record], list[Feature]]

RECORDS_PER_CHUNK = 256  # of one Arrow record batch, and of one parcel of work
MAX_PROBLEMS = 20
COLUMN_PREFIX = "columns."
RECORD_SCHEMA = pa.schema({"fields": pa.string(), "file": pa.binary(), "line": pa.int32()})


class PreparedSplit:
    """The Features and Records of one split, memory-mapped; len() counts the features (rows).

    lengths, num_targets, record_of_row: int64, one per row.
    """

    def __init__(self, directory: Path, name: str) -> None:
        self._features = _ArrowRows(directory / f"{name}-features.arrow")
        self._records = _ArrowRows(directory / f"{name}-records.arrow")
        self.lengths = self._features.numbers("length")
        self.num_targets = self._features.numbers("num_targets")
        self.record_of_row = self._features.numbers("record")

    def __len__(self) -> int:
        return len(self._features)

    @property
    def num_records(self) -> int:
        return len(self._records)

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
        )

    def record(self, index: int) -> Record:
        batch, row = self._records.locate(index)
        values = {name: batch.column(name)[row].as_py() for name in batch.schema.names}
        fields = json.loads(values["fields"])
        return Record(index, fields, os.fsdecode(values["file"]), values["line"])


def prepare_split(
    directory: Path,
    name: str,
    records: Iterable[Record],
    encode: Encode,
    num_workers: int | None = None,
) -> None:
    """Writes one split: its records and, encoded, its features, both in the order of `records`.

    records: their indices count from 0. A few hundred per worker are held in memory at a time.
    num_workers: processes that encode; None or 1: this one.
    Raises BadInput with the first 20 problems of `encode` over all records, or for an empty split.
    """
    problems: list[Problem] = []
    with ExitStack() as stack:
        records_path = str(directory / f"{name}-records.arrow")
        records_file = stack.enter_context(pa.ipc.new_file(records_path, RECORD_SCHEMA))
        features_file = None
        for chunk, features, found in stack.enter_context(
            closing(_encoded(records, encode, num_workers))
        ):
            problems += found
            if len(problems) >= MAX_PROBLEMS:
                raise BadInput(problems[:MAX_PROBLEMS])
            records_file.write_batch(_record_rows(chunk))
            if features is None:
                continue
            if features_file is None:
                features_path = str(directory / f"{name}-features.arrow")
                features_file = stack.enter_context(pa.ipc.new_file(features_path, features.schema))
            features_file.write_batch(features)
    if problems:
        raise BadInput(problems)
    if features_file is None:
        raise BadInput(Problem(name, "has no sample", "give a file with at least one record"))


class _ArrowRows:
    """An Arrow IPC file, memory-mapped, whose rows are found by number."""

    def __init__(self, path: Path) -> None:
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        self._batches = [reader.get_batch(index) for index in range(reader.num_record_batches)]
        sizes = [batch.num_rows for batch in self._batches]
        self._starts: list[int] = list(accumulate(sizes, initial=0))

    def __len__(self) -> int:
        return self._starts[-1]

    def locate(self, index: int) -> tuple[pa.RecordBatch, int]:
        place = bisect_right(self._starts, index) - 1
        return self._batches[place], index - self._starts[place]

    def numbers(self, name: str) -> NDArray[np.int64]:
        parts = [batch.column(name).to_numpy() for batch in self._batches]
        return np.concatenate(parts).astype(np.int64)


def _encoded(
    records: Iterable[Record], encode: Encode, num_workers: int | None
) -> Generator[tuple[list[Record], pa.RecordBatch | None, list[Problem]], None, None]:
    """(records, their features, their problems) by chunks, in order."""
    source = iter(records)
    chunks = iter(lambda: list(islice(source, RECORDS_PER_CHUNK)), [])
    if num_workers is None or num_workers == 1:
        for chunk in chunks:
            yield chunk, *_encode_chunk(chunk, encode)
        return
    # Forked: a worker starts at once, without importing transformers again.
    context = multiprocessing.get_context("fork")
    with (
        _environment("TOKENIZERS_PARALLELISM", "false"),  # its threads do not survive a fork
        ProcessPoolExecutor(num_workers, context, _start_worker, (encode,)) as pool,
    ):
        waiting: deque[tuple[list[Record], Future[Any]]] = deque()
        try:
            for chunk in chunks:
                waiting.append((chunk, pool.submit(_encode_in_worker, chunk)))
                if len(waiting) > 2 * num_workers:
                    done, future = waiting.popleft()
                    yield done, *future.result()
            for done, future in waiting:
                yield done, *future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _encode_chunk(
    records: list[Record], encode: Encode
) -> tuple[pa.RecordBatch | None, list[Problem]]:
    features: list[Feature] = []
    problems: list[Problem] = []
    for record in records:
        try:
            features += encode(record)
        except BadInput as error:
            problems += error.problems
    return (_feature_rows(features) if features else None), problems


_encode_of_worker: Encode


def _start_worker(encode: Encode) -> None:
    global _encode_of_worker
    _encode_of_worker = encode
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends the pool
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _encode_in_worker(records: list[Record]) -> tuple[pa.RecordBatch | None, list[Problem]]:
    return _encode_chunk(records, _encode_of_worker)


def _exit_with_parent() -> None:
    """A worker that outlived a killed parent would hold the inherited lock for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _feature_rows(features: list[Feature]) -> pa.RecordBatch:
    number, numbers = pa.int32(), pa.list_(pa.int32())
    arrays = {
        "record": pa.array([feature.record for feature in features], number),
        "window": pa.array([feature.window for feature in features], number),
        "num_windows": pa.array([feature.num_windows for feature in features], number),
        "length": pa.array([feature.length for feature in features], number),
        "num_targets": pa.array([feature.num_targets for feature in features], number),
        "input_ids": pa.array([feature.input_ids_T for feature in features], numbers),
        "labels": pa.array([feature.labels_T for feature in features], numbers),
    }
    for name in sorted(features[0].columns):  # sorted: one schema for all chunks
        values = [feature.columns[name] for feature in features]
        arrays[COLUMN_PREFIX + name] = pa.array(values, numbers)
    return pa.RecordBatch.from_pydict(arrays)


def _record_rows(records: list[Record]) -> pa.RecordBatch:
    arrays = {
        "fields": [json.dumps(dict(record.fields)) for record in records],
        "file": [os.fsencode(record.file) for record in records],
        "line": [record.line for record in records],
    }
    return pa.RecordBatch.from_pydict(arrays, schema=RECORD_SCHEMA)


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
