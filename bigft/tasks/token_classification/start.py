"""How `bigft init` finds labelled words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from bigft.config.errors import BadInput
from bigft.data.formats.base import ReadOptions
from bigft.data.formats.columns import num_columns
from bigft.data.formats.read import read_records
from bigft.data.records import Record
from bigft.data.tag_schemes import Scheme
from bigft.data.tag_spellings import detect_tagging
from bigft.tasks.protocol import Certainty, Guess, Start
from bigft.tasks.token_classification.fields import SPAN_FIELDS, TAG_FIELDS, TEXT_FIELDS

SENTENCES = 100  # that are looked at for each pair of columns
SHOWN = 4  # tags in a comment
FEW = 0.5  # plain tags are at most so many, as a share of the words


def guesses(paths: Sequence[str], format: str, records: Sequence[Record]) -> Iterator[Guess]:
    if format == "conllu":
        note = "form and upos; data.label_column_name names another column of CoNLL-U"
        yield Guess(Certainty.KNOWN, comment=note)
    elif format == "conll":
        yield from _of_columns(paths[0])
    else:
        yield from _of_fields(records)


def _of_fields(records: Sequence[Record]) -> Iterator[Guess]:
    fields = records[0].fields
    lists = [name for name in fields if isinstance(fields[name], list)]
    text = next((name for name in TEXT_FIELDS if name in fields), None)
    usual = TAG_FIELDS if text in lists else SPAN_FIELDS
    if text and (label := next((name for name in usual if name in lists), None)):
        yield Guess(Certainty.KNOWN, comment=f"{text} and {label}")
        return
    words = [name for name in lists if all(isinstance(word, str) for word in fields[name])]
    for word in words:
        for tag in lists:
            if tag != word and _are_parallel(records, word, tag):
                keys = {"data.text_column_name": word, "data.label_column_name": tag}
                if _are_tags([record.fields[tag] for record in records]):
                    yield Guess(Certainty.USUAL, keys, "words and tags")


def _are_parallel(records: Sequence[Record], one: str, other: str) -> bool:
    values = [(record.fields.get(one), record.fields.get(other)) for record in records]
    return all(isinstance(a, list) and isinstance(b, list) and len(a) == len(b) for a, b in values)


class _Reading(NamedTuple):
    text: int
    label: int
    tags: list[list[str]]


def _of_columns(path: str) -> Iterator[Guess]:
    """Words are the first column that does not number them, tags the last column of BIO tags and
    the like; without such a one the last column, if its values are few."""
    width = num_columns(path)
    first = 0 if width < 3 or _tags(path, None, width - 1) is not None else 1
    readings = [
        _Reading(first, label, tags)
        for label in range(first + 1, width)
        if (tags := _tags(path, first, label)) is not None
    ]
    schemes = [one for one in readings if detect_tagging(one.tags).scheme is not Scheme.NONE]
    if not schemes:
        schemes = [one for one in readings if _are_tags(one.tags)]
    if not schemes:
        return
    text, label, tags = schemes[-1]
    names = sorted({tag for sentence in tags for tag in sentence})
    shown = ", ".join(names[:SHOWN]) + ", ..." * (len(names) > SHOWN)
    if (text, label) == (0, width - 1):
        yield Guess(Certainty.KNOWN, comment=f"the first column and the last: {shown}")
        return
    keys = {"data.text_column_name": text, "data.label_column_name": label}
    note = f"of {width} columns, counted from 0; tags: {shown}"
    yield Guess(Certainty.KNOWN, keys, note)


def _tags(path: str, text: int | None, label: int) -> list[list[str]] | None:
    """Of the first sentences; None where the columns cannot be read."""
    options = ReadOptions("conll", text, label, max_samples=SENTENCES)
    try:
        records = read_records([path], options)
    except BadInput:
        return None
    return [record.fields["ner_tags"] for record in records]


def _are_tags(sequences: Sequence[Sequence[str]]) -> bool:
    """Whether a few values recur, as those of plain tags do; two at least."""
    values = [value for values in sequences for value in values]
    return 1 < len({*map(str, values)}) <= max(2, FEW * len(values))


START = Start(
    f"CoNLL files; {' or '.join(TEXT_FIELDS[:2])} with {', '.join(TAG_FIELDS)}; text with spans of "
    f"characters: {', '.join(SPAN_FIELDS)}",
    "bert-base-cased",
    "for English; for other languages bert-base-multilingual-cased",
    guesses,
)
