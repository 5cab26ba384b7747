"""A text with spans of characters as words with BIO tags."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from bigft.config.errors import BadInput, Problem
from bigft.data.records import Record
from bigft.data.words import split_words, within_word

# A shift by one character cuts 78 to 98% of the spans of five published corpora, right ones none.
MAX_SHIFTED_SHARE = 0.25
SHOWN = 3  # spans that a message names


class Span(NamedTuple):
    """Characters [start, end) of the text."""

    start: int
    end: int
    label: str

    def __str__(self) -> str:
        return f"span {self.label} [{self.start}, {self.end})"


@dataclass(slots=True)
class Borders:
    """Spans of one split whose borders are not those of words, each as file, line and text.

    cut: a word goes on over the start or the end.  padded: white space at the start or the end.
    num_shifted: spans whose start is none of a word's. Where it is, a cut end may be meant: an
        ending that the language adds (Istanbul|da), the first part of a compound.
    """

    num_spans: int = 0
    num_shifted: int = 0
    cut: list[str] = field(default_factory=list)
    padded: list[str] = field(default_factory=list)

    def add(self, record: Record, text: str, span: Span) -> None:
        self.num_spans += 1
        cuts = [border for border in span[:2] if within_word(text, border)]
        if cuts:
            self.cut.append(f"{record.where}: {_word_at(text, cuts[0])}")
        inside = text[span.start : span.end]
        self.num_shifted += span.start in cuts or bool(cuts and inside != inside.lstrip())
        if inside != inside.strip():
            self.padded.append(f"{record.where}: {inside!r}")

    def check(self, split: str) -> None:
        """Raises BadInput where so many are shifted that offsets must be wrong."""
        if self.num_shifted > MAX_SHIFTED_SHARE * self.num_spans:
            mend = "count characters, not bytes, from 0, the end exclusive; where labels are of "
            mend += "parts of words, give tokens and tags instead"
            raise BadInput(Problem(f"data.{split}_file", self._told_of(split, self.cut), mend))

    def notes(self, split: str) -> list[str]:
        """One sentence for each kind that occurs."""
        notes = []
        if self.cut:
            notes.append(self._told_of(split, self.cut) + ": their words are cut there")
        if self.padded:
            what = f"{len(self.padded)} of {self.num_spans} spans of {split} begin or end with "
            notes.append(f"{what}white space, which is left out ({', '.join(self.padded[:SHOWN])})")
        return notes

    def _told_of(self, split: str, cut: list[str]) -> str:
        share = f"{len(cut)} of {self.num_spans} spans of {split} ({len(cut) / self.num_spans:.0%})"
        return f"{share} begin or end inside of a word ({', '.join(cut[:SHOWN])})"


def from_spans(
    record: Record, text: str, labels: list[Any] | None, name: str, borders: Borders
) -> dict[str, Any]:
    """tokens, tags (BIO; None without labels), text and offsets ([start, end] per token).

    labels: spans as the field `name` states them; None where it is absent.
    borders: counts them.
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
        borders.add(record, text, span)
        for at in inside:
            tags[at] = ("B-" if at == inside[0] else "I-") + span.label
    if problems:
        raise BadInput(problems)
    tokens = [text[start:end] for start, end in offsets]
    return {"tokens": tokens, "tags": tags, "text": text, "offsets": [list(o) for o in offsets]}


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
