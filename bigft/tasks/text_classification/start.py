"""How `bigft init` finds texts with labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bigft.data.records import Record
from bigft.tasks.protocol import Certainty, Guess, Start
from bigft.tasks.text_classification.fields import LABEL_FIELDS, PAIRS, TEXT_FIELDS

CLASSES = ("label", "labels", "category", "categories", "intent", "class", "sentiment")
MANY = 8  # records, from which on one can tell classes from texts
LONG = 40  # characters: a class has fewer


def guesses(paths: Sequence[str], format: str, records: Sequence[Record]) -> Iterator[Guess]:
    fields = records[0].fields
    texts = [name for name in fields if _are_texts(records, name)]
    pair = next((pair for pair in PAIRS if {*pair} <= {*texts}), None)
    text = next((name for name in TEXT_FIELDS if name in texts), None)
    label = next((name for name in LABEL_FIELDS if name in fields and name != text), None)
    are_named = not all(name.isdecimal() for name in fields)
    are_labels = label in CLASSES or (label is not None and _are_labels(records, label))
    if are_named and are_labels and (text or pair):
        names = (text,) if text else pair or ()
        yield Guess(Certainty.KNOWN, comment=f"{' and '.join(names)}, {label}")
        return
    others = {name: [record.fields.get(name) for record in records] for name in fields}
    labels = [name for name in fields if name not in texts and _recur(others[name])]
    if len(texts) == 1 and len(labels) == 1:
        columns: list[str | int] = [texts[0], labels[0]]
        if not are_named:
            columns = [int(name) for name in (texts[0], labels[0])]
        keys = dict(zip(("data.text_column_name", "data.label_column_name"), columns, strict=True))
        yield Guess(Certainty.USUAL, keys, "texts, and a few values that recur")


def _are_texts(records: Sequence[Record], name: str) -> bool:
    """Whether they are strings, and not a few that recur."""
    values = [record.fields.get(name) for record in records]
    return all(isinstance(value, str) for value in values) and not _recur(values)


def _are_labels(records: Sequence[Record], name: str) -> bool:
    values: list[Any] = [record.fields.get(name) for record in records]
    if all(isinstance(value, int | float) for value in values):
        return True
    if all(isinstance(value, list) for value in values):
        return all(isinstance(one, str | int) for value in values for one in value)
    return all(isinstance(value, str) for value in values) and _recur(values)


def _recur(values: Sequence[Any]) -> bool:
    """Whether a few short values stand for most records, as classes do."""
    if len(values) < MANY or any(isinstance(value, list | dict) for value in values):
        return False
    return 2 * len({*values}) < len(values) and all(len(str(value)) < LONG for value in values)


START = Start(
    f"{' or '.join(TEXT_FIELDS[:2])} with {', '.join(LABEL_FIELDS[:3])}; a pair of texts: "
    f"{' and '.join(PAIRS[0])}; a folder for each label",
    "bert-base-uncased",
    "for English; for other languages bert-base-multilingual-cased or xlm-roberta-base",
    guesses,
)
