"""What tells whether two preparations made the same training rows, wherever their files lie."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from io import BytesIO
from itertools import chain

import pyarrow as pa

from bigft.data.split import COLUMN_PREFIX, PreparedSplit, to_numpy

VERSION = "v2:"  # raise it when other things are hashed, and keep the older form to compare with
NUMBERS = ("length", "num_targets")  # of a row, beside its columns


def content(split: PreparedSplit, labels: Sequence[str]) -> str:
    """VERSION and 64 hex digits of the labels and of every value that the rows hold. It does not
    change with a library that writes the files, nor with what rows hold beside them."""
    columns: dict[str, _Hashed] = {}
    for batch in chain.from_iterable(split.files()):
        for name in batch.schema.names:
            if name in NUMBERS or name.startswith(COLUMN_PREFIX):
                columns.setdefault(name, _Hashed()).update(batch.column(name))
    digests = {name: hashed.digest() for name, hashed in columns.items()}
    whole = json.dumps([list(labels), digests], sort_keys=True)
    return VERSION + hashlib.sha256(whole.encode()).hexdigest()


class _Hashed:
    """The values of a column, and of lists their lengths, as little-endian numbers; however they
    are cut into batches."""

    def __init__(self) -> None:
        self._lengths, self._values = hashlib.sha256(), hashlib.sha256()

    def update(self, column: pa.Array) -> None:
        values = column
        if pa.types.is_list(column.type):
            lengths = to_numpy(column.value_lengths())
            self._lengths.update(lengths.astype("<i8").tobytes())
            values = column.flatten()
        kind = "<f8" if pa.types.is_floating(values.type) else "<i8"
        self._values.update(to_numpy(values).astype(kind).tobytes())

    def digest(self) -> list[str]:
        return [self._lengths.hexdigest(), self._values.hexdigest()]


def content_by_files(split: PreparedSplit, labels: Sequence[str]) -> str:
    """The same as bigft wrote it into checkpoints before `VERSION`: a hash of the bytes of files
    that held the rows. 64 hex digits; other ones if pyarrow has changed its format since.
    """
    digest = hashlib.sha256(json.dumps(list(labels)).encode())
    for batches in split.files():
        file = BytesIO()
        old = [_as_before(batch) for batch in batches]
        with pa.ipc.new_file(file, old[0].schema) as writer:
            for batch in old:
                writer.write_batch(batch)
        digest.update(hashlib.sha256(file.getbuffer()).digest())
    return digest.hexdigest()


def _as_before(batch: pa.RecordBatch) -> pa.RecordBatch:
    own = [name for name in batch.schema.names if name.startswith(COLUMN_PREFIX)]
    first = {f"{COLUMN_PREFIX}{name}": name for name in ("input_ids", "labels")}
    arrays = {name: batch.column(name) for name in batch.schema.names if name not in own}
    arrays |= {old: batch.column(name) for name, old in first.items() if name in own}
    arrays |= {name: batch.column(name) for name in own if name not in first}
    return pa.RecordBatch.from_pydict(arrays)
