"""The text of a record."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace

from bigft.config.errors import BadInput, Problem
from bigft.config.sections import DataConfig
from bigft.data.formats.base import did_you_mean
from bigft.data.records import Record
from bigft.tasks.usable import usable

USUAL = "text"


def column(data: DataConfig) -> str:
    """The field that holds the text."""
    return USUAL if data.text_column_name is None else str(data.text_column_name)


def texts(
    records: Iterable[Record], data: DataConfig, split: str = "train", notes: list[str] | None = None
) -> Iterator[Record]:
    """The records as {"text"}, from the field that the config names, or from `text`: see `usable`.
    Refused are records without it, with anything but a text in it, or with an empty one."""
    name = column(data)

    def text(record: Record) -> list[Record]:
        return [replace(record, fields={USUAL: _text(record, name)})]

    return usable(records, text, split, data.on_bad_record, notes)


def _text(record: Record, name: str) -> str:
    names = list(record.fields)
    if name not in record.fields:
        what = f"no field {name!r}; there are {', '.join(names)}"
        fix = did_you_mean(name, names) or "set data.text_column_name to the one of the text"
        raise BadInput(Problem(record.where, what, fix))
    value = record.fields[name]
    if not isinstance(value, str):
        shown = json.dumps(value, default=str)[:40]
        fix = "write a text, or set data.text_column_name to the field of the text"
        raise BadInput(Problem(record.where, f"{name!r} is no string but {shown}", fix))
    if not value.strip():
        raise BadInput(Problem(record.where, f"{name!r} is empty", "delete the record"))
    return value
