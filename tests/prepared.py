"""Splits as tests prepare them: with what encodes one record."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from bigft.data import prepare
from bigft.data.records import Record, Row
from bigft.data.split import PreparedSplit


def prepare_split(
    directory: Path,
    name: str,
    records: Iterable[Record],
    encode: Callable[[Record], list[Row]],
    num_workers: int | None = None,
) -> PreparedSplit:
    encode_all = prepare.one_by_one(encode)
    return prepare.prepare_split(directory, name, records, encode_all, num_workers)
