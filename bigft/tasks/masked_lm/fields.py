"""The text of a record."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace

from bigft.config.errors import BadInput, Problem
from bigft.config.sections import RunConfig
from bigft.config.tasks import MaskedLM
from bigft.data.formats.base import did_you_mean
from bigft.data.records import Record
from bigft.tasks.usable import usable

USUAL = "text"


def sentences(text: str) -> list[str]:
    """Of a document: its lines, but for blank ones."""
    return [line for line in text.split("\n") if line.strip()]


def column(config: RunConfig) -> str:
    """The field that holds the text."""
    named = config.data.text_column_name
    return USUAL if named is None else str(named)


def texts(
    records: Iterable[Record],
    config: RunConfig,
    split: str = "train",
    notes: list[str] | None = None,
) -> Iterator[Record]:
    """The records as {"text"}, from the field that the config names, or from `text`: see `usable`.

    Refused are records without it, with anything but a text in it, or with an empty one; where
    pairs are made, documents of a single sentence.
    """
    name, task = column(config), config.task
    assert isinstance(task, MaskedLM)

    def text(record: Record) -> list[Record]:
        found = _text(record, name)
        if task.next_sentence_prediction and len(sentences(found)) < 2:
            what = "a document of one line, which is one sentence: task.next_sentence_prediction "
            what += "needs two or more"
            fix = "write a sentence a line; data.sample_by says what a document of a text file is"
            raise BadInput(Problem(record.where, what, fix))
        return [replace(record, fields={USUAL: found})]

    return usable(records, text, split, config.data.on_bad_record, notes)


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
