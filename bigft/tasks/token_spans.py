"""A text with spans of characters as words with BIO tags."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from bigft.config.errors import BadInput, Problem
from bigft.data.records import Record
from bigft.data.words import split_words


class Span(NamedTuple):
    """Characters [start, end) of the text."""

    start: int
    end: int
    label: str

    def __str__(self) -> str:
        return f"span {self.label} [{self.start}, {self.end})"


def from_spans(record: Record, text: str, labels: list[Any] | None, name: str) -> dict[str, Any]:
    """tokens, tags (BIO; None without labels), text and offsets ([start, end] per token).

    labels: spans as the field `name` states them; None where it is absent.
    Raises BadInput for spans that overlap, leave the text or hold no word.
    """
    spans, problems = _spans(record, text, labels or [], name)
    for span, following in pairwise(spans):
        if following.start < span.end:
            found = f"{span} and {following} overlap"
            problems.append(Problem(record.where, found, "keep one of them"))
    if problems:
        raise BadInput(problems)
    offsets = split_words(text, {border for span in spans for border in span[:2]})
    tags: list[str | None] = [None if labels is None else "O"] * len(offsets)
    for span in spans:
        inside = [at for at, (start, _) in enumerate(offsets) if span.start <= start < span.end]
        if not inside:
            found = f"{span} holds only white space"
            problems.append(Problem(record.where, found, "delete it, or mend its borders"))
        for at in inside:
            tags[at] = ("B-" if at == inside[0] else "I-") + span.label
    if problems:
        raise BadInput(problems)
    tokens = [text[start:end] for start, end in offsets]
    return {"tokens": tokens, "tags": tags, "text": text, "offsets": [list(o) for o in offsets]}


def _spans(
    record: Record, text: str, labels: list[Any], name: str
) -> tuple[list[Span], list[Problem]]:
    """The sound ones of the spans by position, and what is wrong with the others."""
    spans: list[Span] = []
    problems: list[Problem] = []
    for label in labels:
        values = label
        if isinstance(label, Mapping):
            values = [label.get(key) for key in Span._fields]
        if not isinstance(values, list) or [type(value) for value in values] != [int, int, str]:
            mend = 'write {"start": 0, "end": 5, "label": "PER"} or [0, 5, "PER"]'
            problems.append(Problem(record.where, f"{label!r} in {name} is no span", mend))
            continue
        span = Span(*values)
        stated = label.get("text") if isinstance(label, Mapping) else None
        if span.start >= span.end:
            found = f"{span} ends before it holds a character"
            problems.append(Problem(record.where, found, "write an end greater than the start"))
        elif span.start < 0 or span.end > len(text):
            found = f"{span} leaves the text, which has {len(text)} characters"
            problems.append(Problem(record.where, found, "count characters, not bytes, from 0"))
        elif stated is not None and stated != text[span.start : span.end]:
            found = f"{span} is {text[span.start : span.end]!r} in the text, not {stated!r}"
            problems.append(Problem(record.where, found, "count characters, not bytes, from 0"))
        else:
            spans.append(span)
    return sorted(spans), problems
