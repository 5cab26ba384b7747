"""One form for every way to write labelled tokens: fields `tokens` and `tags`, of equal length."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from bigft.config.errors import BadInput, Problem
from bigft.config.sections import OnBadRecord
from bigft.data.formats.base import MAX_PROBLEMS, capped, did_you_mean
from bigft.data.records import Record
from bigft.data.tag_schemes import Scheme, are_bio, scheme_violations, to_bio
from bigft.data.tag_spellings import Tagging, respelled
from bigft.tasks.token_classification.spans import SpanTally, from_spans, without_doubled_prefix
from bigft.tasks.usable import usable

# Tried in this order where the config names no field.
TEXT_FIELDS = ("tokens", "words", "text")
TAG_FIELDS = ("ner_tags", "tags", "labels")
SPAN_FIELDS = ("spans", "entities", "label", "labels", "ner")
KEPT_FIELDS = ("id", "text", "offsets", "lines")

OUTSIDE = "O"
# Keys by which the files of other tools are known, and what to do with them.
OF_TOOLS = {
    ("data", "annotations"): "this is Label Studio's JSON: export JSON_MIN or CONLL2003 instead",
    ("classes", "annotations"): 'write {"text": ..., "entities": [[0, 5, "PER"]]} for each text',
    ("tokenized_text", "ner"): "write tokens and ner_tags, a tag for each token",
}
SPACED = "have labels with white space around them, which is left out"
IDS_BEGIN_ANEW = "have an id that a record of another file has too: ids are told apart by file"
BIO_TAG = re.compile(r"[BI]-(.+)")


def columns(text: str | int | None, label: str | int | None) -> frozenset[str]:
    """The fields that `normalise` may take, given the names that the config gives."""
    texts = TEXT_FIELDS if text is None else (str(text),)
    labels = (*TAG_FIELDS, *SPAN_FIELDS) if label is None else (str(label),)
    return frozenset({*texts, *labels})


def normalise(
    records: Sequence[Record],
    *,
    text_column_name: str | int | None,
    label_column_name: str | int | None,
    label_list: Sequence[str] | None,
    split: str,
    require_labels: bool = True,
    on_bad_record: OnBadRecord = "refuse",
    notes: list[str] | None = None,
) -> list[Record]:
    """The records with fields `tokens` (str each) and `tags` (str, or None for no target).

    Understands lists of tokens and tags (names, or numbers of `label_list`), and a text with
    spans of characters: {"start", "end", "label"} or [start, end, label]. A text is cut into words,
    also at the borders of spans; its record gains `offsets`. `id`, `text`, `offsets` and
    `lines` are kept.

    Args:
        text_column_name, label_column_name: fields to take; None tries the usual names.
        label_list: all tags that may occur; None allows any.
        split: train, validation or test; for messages.
        require_labels: if False, a record without labels gets None for every tag.
        on_bad_record, notes: see `usable`; notes takes what a user should know of the spans, too.

    Raises BadInput with up to MAX_PROBLEMS problems.
    """
    if not records:
        raise BadInput(Problem(f"data.{split}_file", "no sample in it"))
    first_with: dict[Any, Record] = {}  # by id, and by file and id
    tally = SpanTally()

    def labelled(record: Record) -> Iterator[Record]:
        record = _with_id(record, first_with, split)
        _check_accepted(record)
        text = _text(record, text_column_name)
        field, labels = _labels(record, text, label_column_name, require_labels)
        if isinstance(text, str):
            fields = from_spans(record, text, labels, field, tally)
        else:
            fields = {"tokens": text, "tags": _tags(record, text, labels, field, label_list)}
            if any(isinstance(tag, str) and tag != tag.strip() for tag in labels or ()):
                record = replace(record, notes=(*record.notes, SPACED))
        kept = {name: record.fields[name] for name in KEPT_FIELDS if name in record.fields}
        record = replace(record, fields=kept | fields)
        _check_tokens(record)
        yield record

    normalised = list(usable(records, labelled, split, on_bad_record, notes))
    tally.check(split)
    _check_words(normalised, split)
    if tally.are_tags:
        normalised = list(map(without_doubled_prefix, normalised))
    if label_list is not None:
        _check_known(normalised, label_list, tally.num_spans > 0)
    if notes is not None:
        notes += tally.notes(split)
    return normalised


def tag_sequences(records: Sequence[Record]) -> list[list[str]]:
    """The tags of each record without the nulls: what `detect_scheme` looks at."""
    return [[tag for tag in record.fields["tags"] if tag is not None] for record in records]


def to_bio_records(records: Sequence[Record], tagging: Tagging) -> list[Record]:
    """The records with BIO tags; the same records for the scheme "none". Nulls are passed over.

    Raises BadInput with up to MAX_PROBLEMS tags that break the scheme.
    """
    scheme, spelling = tagging
    if scheme is Scheme.NONE:
        return list(records)
    converted: list[Record] = []
    problems: list[Problem] = []
    for record, written in zip(records, tag_sequences(records), strict=True):
        tags = respelled(written, spelling)
        positions = [at for at, tag in enumerate(record.fields["tags"]) if tag is not None]
        if violations := scheme_violations(tags, scheme):
            fix = f"fix the tag; the training set is read as {tagging}"
            problems += [
                Problem(place_of(record, positions[at]), why, fix) for at, why in violations
            ]
            if len(problems) > MAX_PROBLEMS:
                break
            continue
        bio: list[str | None] = list(record.fields["tags"])
        for at, tag in zip(positions, to_bio(tags, scheme), strict=True):
            bio[at] = tag
        converted.append(replace(record, fields={**record.fields, "tags": bio}))
    if problems:
        raise BadInput(capped(problems, records[0].file))
    return converted


def label_set(records: Sequence[Record]) -> list[str]:
    """All labels by class id: O, then B-X and I-X of each type X; or the plain tags, sorted.

    A type has both its labels even where only one occurs.
    """
    tags = {tag for sequence in tag_sequences(records) for tag in sequence}
    outside = [OUTSIDE] if OUTSIDE in tags else []
    inside = sorted(tags - {OUTSIDE})
    matches = [BIO_TAG.fullmatch(tag) for tag in inside]
    if not inside or not all(matches):
        return outside + inside
    types = sorted({match.group(1) for match in matches if match})
    return [OUTSIDE] + [f"{prefix}-{name}" for name in types for prefix in "BI"]


def place_of(record: Record, token: int) -> str:
    """Where a token stands: its own line in a file of columns, else its place in the record."""
    if "lines" in record.fields:
        return f"{record.file}:{record.fields['lines'][token]}"
    return f"{record.where}: token {token + 1}"


def _with_id(record: Record, first_with: dict[Any, Record], split: str) -> Record:
    """The record, with a note if another file holds its id; in one file ids must differ."""
    name = record.fields.get("id")
    if not isinstance(name, str | int):
        return record
    first = first_with.setdefault((record.file, name), record)
    if first is not record:
        found = f"the id {name!r} is also that of {first.where} in the {split} set"
        raise BadInput(Problem(record.where, found, "give each record its own id"))
    if first_with.setdefault(name, record).file != record.file:
        return replace(record, notes=(*record.notes, IDS_BEGIN_ANEW))
    return record


def _find(record: Record, option: str, asked: str | int | None, usual: Sequence[str]) -> str | None:
    """The name of the field to take; None if it is absent."""
    # A reader of columns has already picked the asked ones, and gives them the usual names.
    if asked is None or "lines" in record.fields:
        there = [name for name in usual if name in record.fields]
        filled = [name for name in there if record.fields[name] is not None]
        return next(iter(filled or there), None)
    if isinstance(asked, int):
        found = f"column number {asked}, but the fields have names: {', '.join(record.fields)}"
        raise BadInput(Problem(f"{record.where}: data.{option}", found, "write a field's name"))
    return asked if asked in record.fields else None


def _absent(record: Record, option: str, asked: str | int | None, usual: Sequence[str]) -> Problem:
    names = [str(asked)] if asked is not None else list(usual)
    found = f"no field {' or '.join(names)}; there are {', '.join(record.fields) or 'none'}"
    guesses = [did_you_mean(name, list(record.fields)) for name in names]
    fix = next(filter(None, guesses), "name the field") + f" (data.{option})"
    tools = [known for keys, known in OF_TOOLS.items() if record.fields.keys() >= {*keys}]
    fix = next(iter(tools), fix)
    return Problem(record.where, found, fix)


def _text(record: Record, asked: str | int | None) -> str | list[str]:
    """A text or a list of tokens."""
    name = _find(record, "text_column_name", asked, TEXT_FIELDS)
    if name is None:
        raise BadInput(_absent(record, "text_column_name", asked, TEXT_FIELDS))
    value = record.fields[name]
    are_objects = isinstance(value, list) and any(isinstance(token, dict) for token in value)
    if asked is None and are_objects and isinstance(record.fields.get("text"), str):
        return str(record.fields["text"])  # Prodigy writes where the tokens of `text` lie, too
    if not isinstance(value, str | list):
        found = f"the field {name} is {value!r}"
        raise BadInput(Problem(record.where, found, "write a list of tokens, or a text"))
    for at, token in enumerate(value if isinstance(value, list) else []):
        if not isinstance(token, str):
            found = f"{token!r} in {name} is no string"
            raise BadInput(Problem(place_of(record, at), found, "put the token in quotes"))
    return value


def _labels(
    record: Record, text: str | list[str], asked: str | int | None, required: bool
) -> tuple[str, list[Any] | None]:
    """The field, and tags or spans as they stand; None where they are absent and may be."""
    usual, kind = (SPAN_FIELDS, "spans") if isinstance(text, str) else (TAG_FIELDS, "tags")
    name = _find(record, "label_column_name", asked, usual)
    if name is None:
        if required:
            raise BadInput(_absent(record, "label_column_name", asked, usual))
        return "", None
    value = record.fields[name]
    if not isinstance(value, list):
        found = f"the field {name} is {value!r}"
        raise BadInput(Problem(record.where, found, f"write a list of {kind}"))
    other = _find(record, "label_column_name", None, [field for field in usual if field != name])
    if asked is None and other is not None and not value and record.fields[other]:
        found = f"the field {name} is empty, but {other} is not"
        fix = f"set data.label_column_name to {name} or to {other}"
        raise BadInput(Problem(record.where, found, fix))
    return name, value


def _tags(
    record: Record,
    tokens: list[str],
    labels: list[Any] | None,
    name: str,
    label_list: Sequence[str] | None,
) -> list[str | None]:
    """One tag per token, numbers turned into names."""
    if labels is None:
        return [None] * len(tokens)
    if len(tokens) != len(labels):
        found = f"{len(tokens)} tokens, but {len(labels)} tags in {name}"
        raise BadInput(Problem(record.where, found, "write one tag per token"))
    tags: list[str | None] = []
    problems: list[Problem] = []
    for at, label in enumerate(labels):
        if label is None:
            tags.append(None)
        elif isinstance(label, str) and label.strip():
            tags.append(label.strip())
        elif isinstance(label, bool) or not isinstance(label, int):
            found = f"{label!r} in {name} is no tag"
            problems.append(
                Problem(place_of(record, at), found, "write a label, or null for no target")
            )
        elif label_list is None:
            found = f"the tag {label} in {name} is a number"
            fix = "list the labels in data.label_list, in the order of their numbers"
            problems.append(Problem(place_of(record, at), found, fix))
        elif not 0 <= label < len(label_list):
            found = f"the tag {label} in {name} is no number of data.label_list"
            fix = f"write 0 to {len(label_list) - 1}, or null for no target"
            problems.append(Problem(place_of(record, at), found, fix))
        else:
            tags.append(label_list[label])
    if problems:
        raise BadInput(problems)
    return tags


def _check_tokens(record: Record) -> None:
    tokens, tags = record.fields["tokens"], record.fields["tags"]
    if not tokens:
        raise BadInput(Problem(record.where, "no token", "delete the record, or write its text"))
    # Published corpora hold empty tokens outside of entities; only a label there is a loss.
    problems = [
        Problem(
            place_of(record, at),
            f"the token {token!r} is empty, but has the label {tag}",
            "write the token, or the label O",
        )
        for at, (token, tag) in enumerate(zip(tokens, tags, strict=True))
        if not token.strip() and tag not in (OUTSIDE, None)
    ]
    if problems:
        raise BadInput(problems)


def _check_words(records: Sequence[Record], split: str) -> None:
    """Raises BadInput where words and tags have changed places."""
    words = {word for record in records for word in record.fields["tokens"]}
    if OUTSIDE in words and are_bio(words):
        found = f"every word is a tag ({', '.join(sorted(words)[:5])})"
        fix = "swap data.text_column_name and data.label_column_name"
        raise BadInput(Problem(f"data.{split}_file", found, fix))


def _check_accepted(record: Record) -> None:
    """Prodigy keeps what an annotator turned down beside what was accepted."""
    answer = record.fields.get("answer")
    if "_task_hash" in record.fields and answer in ("reject", "ignore"):
        found = f"the answer of Prodigy's annotator is {answer!r}"
        raise BadInput(Problem(record.where, found, "keep records with the answer accept only"))


def _check_known(records: Sequence[Record], label_list: Sequence[str], of_spans: bool) -> None:
    """Raises BadInput with up to MAX_PROBLEMS labels that are not in the list."""
    known = frozenset(label_list)
    if of_spans and not any(map(BIO_TAG.fullmatch, known)):
        found = f"{', '.join(label_list)}: spans become tags, and none of these is one"
        fix = f"write O, B-{label_list[-1]}, I-{label_list[-1]} and so on"
        raise BadInput(Problem("data.label_list", found, fix))
    problems: list[Problem] = []
    for record in records:
        for at, tag in enumerate(record.fields["tags"]):
            if tag is not None and tag not in known:
                fix = did_you_mean(tag, sorted(known)) or f"there are {', '.join(sorted(known))}"
                found = f"the label {tag!r} is not in data.label_list"
                problems.append(Problem(place_of(record, at), found, fix))
        if len(problems) > MAX_PROBLEMS:
            break
    if problems:
        raise BadInput(capped(problems, records[0].file))
