"""Words with their tags, and what carries which label: what `bigft check` shows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from textwrap import shorten

from bigft.config.tag_names import OUTSIDE
from bigft.data.records import Record
from bigft.data.split import PreparedSplit
from bigft.data.tag_schemes import are_bio, split_tag
from bigft.tasks.token_classification.metric import entities

SENTENCES = 2
WORDS = 40  # of a sentence
RECORDS = 10_000  # that are looked through for examples of labels
EXAMPLES = 5  # of a label
LABELS = 25
CHARACTERS = 240  # of an example


def examples(train: PreparedSplit, labels: Sequence[str]) -> Iterator[str]:
    """The first sentences, different examples of each label, and the labels, a line each."""
    records = range(train.num_records)
    yield "the first records of train, words with their tags:"
    yield from map(tagged, map(train.record, records[:SENTENCES]))
    yield f"what has which label in the first {len(records[:RECORDS]):,} records:"
    yield from by_label(map(train.record, records[:RECORDS]), labels)
    yield f"labels: {', '.join(labels)}"


def tagged(record: Record) -> str:
    """Words as word/tag; those outside of entities alone."""
    pairs = list(zip(record.fields["tokens"], record.fields["tags"], strict=True))
    shown = [word if tag == OUTSIDE else f"{word}/{tag or 'null'}" for word, tag in pairs[:WORDS]]
    return "  " + " ".join(shown) + (" ..." if len(pairs) > WORDS else "")


def by_label(records: Iterable[Record], labels: Sequence[str]) -> Iterator[str]:
    """Different entities of each type of the labels, of plain labels words, a line per type."""
    are_tags = are_bio(labels)
    names = [split_tag(label)[1] if are_tags else label for label in labels if label != OUTSIDE]
    found: dict[str, dict[str, None]] = {name: {} for name in names}  # a dict keeps the order
    for record in records:
        words = record.fields["tokens"]
        tags = [tag or OUTSIDE for tag in record.fields["tags"]]
        spans = entities(tags) if are_tags else [(tag, at, at + 1) for at, tag in enumerate(tags)]
        for name, first, end in spans:
            if name != OUTSIDE and len(found[name]) < EXAMPLES:
                found[name][" ".join(words[first:end])] = None
        if all(len(shown) == EXAMPLES for shown in found.values()):
            break
    for name, shown in list(found.items())[:LABELS]:
        texts = ", ".join(shorten(text, CHARACTERS, placeholder=" ...") for text in shown)
        yield f"  {name}: {texts or 'none'}"
    if len(found) > LABELS:
        yield f"  and {len(found) - LABELS} more"
