"""A text with spans of characters as words with BIO tags."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple

from bigft.config.errors import BadInput, Problem
from bigft.data.records import Record
from bigft.data.words import split_words, within_word

# A shift by one character cuts 78 to 98% of the spans of five published corpora, right ones none.
MAX_SHIFTED_SHARE = 0.25
# Of spans whose end is inclusive nearly all cut off one character; of right ones hardly any does.
MAX_SHORT_SHARE = 0.5
LEAST_SHORT = 5  # spans that are evidence
SHOWN = 3  # spans that a message names
# What the keys of a span are called: here and by spaCy and Prodigy, by doccano, by Label Studio, by
# the pipelines of transformers, by `bigft predict`.
KEYS = {
    "start": ("start", "start_offset"),
    "end": ("end", "end_offset"),
    "label": ("label", "labels", "entity_group", "type"),
}
OUTSIDE = "O"
TAG = re.compile(r"[BI]-.+")


class Span(NamedTuple):
    """Characters [start, end) of the text."""

    start: int
    end: int
    label: str

    def __str__(self) -> str:
        return f"span {self.label} [{self.start}, {self.end})"


@dataclass(slots=True)
class SpanTally:
    """What the spans of one split are like; places are each a file, a line and a text.

    cut: a word goes on over the start or the end.  padded: white space at the start or the end.
    num_shifted: spans whose start is none of a word's. Where it is, a cut end may be meant: an
        ending that the language adds (Istanbul|da), the first part of a compound.
    short: spans that leave out just the last character of a word.
    labels: all that occur.  outside: spans with the label O, which mark nothing.
    """

    num_spans: int = 0
    num_shifted: int = 0
    cut: list[str] = field(default_factory=list)
    short: list[str] = field(default_factory=list)
    padded: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    labels: set[str] = field(default_factory=set)

    def add(self, record: Record, text: str, span: Span) -> None:
        self.num_spans += 1
        self.labels.add(span.label)
        cuts = [border for border in span[:2] if within_word(text, border)]
        if cuts:
            self.cut.append(f"{record.where}: {_word_at(text, cuts[0])}")
        if cuts == [span.end] and not within_word(text, span.end + 1):
            self.short.append(self.cut[-1])
        inside = text[span.start : span.end]
        self.num_shifted += span.start in cuts or bool(cuts and inside != inside.lstrip())
        if inside != inside.strip():
            self.padded.append(f"{record.where}: {inside!r}")

    @property
    def are_tags(self) -> bool:
        """Whether the labels of spans are written as tags: all of them as B-X or I-X, some B-X."""
        begin = any(label.startswith("B-") for label in self.labels)
        return begin and all(map(TAG.fullmatch, self.labels))

    def check(self, split: str) -> None:
        """Raises BadInput where so many are shifted or short that offsets must be wrong."""
        if self.num_shifted > MAX_SHIFTED_SHARE * self.num_spans:
            fix = "count characters, not bytes, from 0, the end exclusive; where labels are of "
            fix += "parts of words, give tokens and tags instead"
            raise BadInput(Problem(f"data.{split}_file", self._told_of(split, self.cut), fix))
        if len(self.short) > max(LEAST_SHORT - 1, MAX_SHORT_SHARE * self.num_spans):
            found = f"{self._share_of(split, self.short)} leave out the last character of a word"
            fix = "an end is exclusive: add 1 to each"
            raise BadInput(Problem(f"data.{split}_file", found + self._listed(self.short), fix))

    def notes(self, split: str) -> list[str]:
        """One sentence for each kind that occurs."""
        notes = []
        if self.cut:
            notes.append(self._told_of(split, self.cut) + ": their words are cut there")
        if self.padded:
            what = f"{len(self.padded)} of {self.num_spans} spans of {split} begin or end with "
            notes.append(f"{what}white space, which is left out ({', '.join(self.padded[:SHOWN])})")
        if self.outside:
            what = f"{len(self.outside)} spans of {split} have the label {OUTSIDE} and mark nothing"
            notes.append(what + self._listed(self.outside))
        if self.are_tags:
            labels = ", ".join(sorted(self.labels)[:SHOWN])
            what = f"the labels of the spans of {split} are tags ({labels})"
            notes.append(f"{what}: the first word of each has that tag")
        return notes

    def _told_of(self, split: str, cut: list[str]) -> str:
        return f"{self._share_of(split, cut)} begin or end inside of a word{self._listed(cut)}"

    def _share_of(self, split: str, some: list[str]) -> str:
        share = len(some) / self.num_spans
        return f"{len(some)} of {self.num_spans} spans of {split} ({share:.0%})"

    def _listed(self, places: list[str]) -> str:
        return f" ({', '.join(places[:SHOWN])})"


def from_spans(
    record: Record, text: str, labels: list[Any] | None, name: str, tally: SpanTally
) -> dict[str, Any]:
    """tokens, tags (BIO; None without labels), text and offsets ([start, end] per token).

    labels: spans as the field `name` states them; None where it is absent.
    tally: counts them.
    Raises BadInput for spans that overlap, leave the text or hold no word.
    """
    spans, problems = _spans(record, text, labels or [], name)
    tally.outside += [f"{record.where}: {span}" for span in spans if span.label == OUTSIDE]
    spans = [span for span in spans if span.label != OUTSIDE]
    for span, following in pairwise(spans):
        if following.start < span.end:
            found = f"{span} and {following} overlap"
            problems.append(Problem(record.where, found, "keep one of them"))
    if problems:
        raise BadInput(problems)
    offsets = split_words(text, {border for span in spans for border in span[:2]})
    tags: list[str | None] = [None if labels is None else OUTSIDE] * len(offsets)
    for span in spans:
        inside = [at for at, (start, _) in enumerate(offsets) if span.start <= start < span.end]
        if not inside:
            found = f"{span} holds only white space"
            problems.append(Problem(record.where, found, "delete it, or fix its borders"))
        tally.add(record, text, span)
        for at in inside:
            tags[at] = ("B-" if at == inside[0] else "I-") + span.label
    if problems:
        raise BadInput(problems)
    tokens = [text[start:end] for start, end in offsets]
    return {"tokens": tokens, "tags": tags, "text": text, "offsets": [list(o) for o in offsets]}


def without_doubled_prefix(record: Record) -> Record:
    """The record of spans whose labels are tags: of a span I-X every word is I-X, as one that goes
    on where a span B-X ended."""
    tags = [_single(tag) for tag in record.fields["tags"]]
    return replace(record, fields={**record.fields, "tags": tags})


def _single(tag: str | None) -> str | None:
    """B-X of B-B-X; I-X of I-B-X, B-I-X and I-I-X."""
    if tag is None or tag == OUTSIDE:
        return tag
    return tag[2:] if tag.startswith("B-") else f"I-{tag[4:]}"


def _word_at(text: str, offset: int) -> str:
    """The word around an offset, marked there: "Ibupro|fen"."""
    (word,) = [(start, end) for start, end in split_words(text) if start < offset < end]
    return f"{text[word[0] : offset]}|{text[offset : word[1]]}"


def _spans(
    record: Record, text: str, labels: list[Any], name: str
) -> tuple[list[Span], list[Problem]]:
    """The sound ones of the spans by position, and what is wrong with the others."""
    spans: list[Span] = []
    problems: list[Problem] = []
    for label in labels:
        values = label
        if isinstance(label, Mapping):
            values = [_value(label, names) for names in KEYS.values()]
        types = [type(value) for value in values] if isinstance(values, list) else []
        if types != [int, int, str] or not values[2].strip():
            fix = 'write {"start": 0, "end": 5, "label": "PER"} or [0, 5, "PER"]'
            problems.append(Problem(record.where, f"{label!r} in {name} is no span", fix))
            continue
        span = Span(values[0], values[1], values[2].strip())
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


def _value(span: Mapping[str, Any], names: Sequence[str]) -> Any:
    """Of the first of the names that is there; of a list of one the element."""
    value = next((span[name] for name in names if span.get(name) is not None), None)
    return value[0] if isinstance(value, list) and len(value) == 1 else value
