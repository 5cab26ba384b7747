"""From the fields of a record to a source and a target text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from bigft.config.errors import BadInput, Problem
from bigft.config.sections import DataConfig, RunConfig
from bigft.config.tasks import Seq2Seq
from bigft.data.formats.base import did_you_mean
from bigft.data.records import Record
from bigft.tasks.seq2seq.languages import matching
from bigft.tasks.usable import usable

SIDES = {"source": "text_column_name", "target": "label_column_name"}


def columns(data: DataConfig) -> frozenset[str]:
    """The fields that `pairs` may take."""
    named = (data.text_column, data.label_column)
    if named == (None, None):
        return frozenset({*SIDES, "translation"})
    sides = zip(SIDES, named, strict=True)
    return frozenset(side if name is None else str(name) for side, name in sides)


def pairs(
    records: Iterable[Record],
    config: RunConfig,
    split: str = "train",
    notes: list[str] | None = None,
) -> Iterator[Record]:
    """The records as {"source", "target"}: from the named columns, from two fields of these names,
    or from {"translation": {language: text}}, whose languages may be named as columns too.

    See `usable`.
    """

    def pair(record: Record) -> list[Record]:
        return [replace(record, fields=_pair(record, config))]

    return usable(records, pair, split, config.data.on_bad_record, notes)


def _pair(record: Record, config: RunConfig) -> dict[str, str]:
    assert isinstance(config.task, Seq2Seq)
    data, languages = config.data, (config.task.source_lang, config.task.target_lang)
    columns = (data.text_column, data.label_column)
    has_translation = isinstance(record.fields.get("translation"), dict)
    texts = {}
    for side, column, code in zip(SIDES, columns, languages, strict=True):
        unnamed = columns == (None, None) or (column is None and side not in record.fields)
        if has_translation and unnamed:
            texts[side] = _text(record, side, _of_language(record, side, code))
        else:
            texts[side] = _text(record, side, _of_column(record, side, column))
    return texts


def _of_language(record: Record, side: str, code: str | None) -> Any:
    """The text of the language, however its code is spelled: en, en_XX and eng_Latn are one."""
    texts = record.fields["translation"]
    known = ", ".join(map(repr, texts))
    if code is None:
        what = f"translations into {known}, but which is the {side}?"
        raise BadInput(Problem(f"task.{side}_lang", what, "name its language"))
    found = matching(code, texts)
    if len(found) == 1:
        return texts[found[0]]
    if found:
        what = f"{code!r} (the {side}) may be {' or '.join(map(repr, found))}"
        raise BadInput(Problem(record.where, what, f"name one in data.{SIDES[side]}"))
    fix = f"there are {known}: set task.{side}_lang, or name one in data.{SIDES[side]}"
    raise BadInput(Problem(record.where, f"no translation in {code!r} (the {side})", fix))


def _of_column(record: Record, side: str, column: str | int | None) -> Any:
    name = side if column is None else str(column)  # a table without names numbers its columns
    translation = record.fields.get("translation")
    fields = translation if isinstance(translation, dict) else {}
    fields = {**fields, **record.fields}
    if name in fields:
        return fields[name]
    names = list(fields)
    what = f"no field {name!r} (the {side}); there are {', '.join(names)}"
    fix = did_you_mean(name, names) or f"set data.{SIDES[side]} to one of these"
    raise BadInput(Problem(record.where, what, fix))


def _text(record: Record, side: str, value: Any) -> str:
    if not isinstance(value, str):
        what = f"the {side} is no string but {json.dumps(value)[:40]}"
        raise BadInput(Problem(record.where, what, "write a text"))
    if not value.strip():
        what = f"the {side} is empty"
        raise BadInput(Problem(record.where, what, "remove the line, or write a text"))
    return value
