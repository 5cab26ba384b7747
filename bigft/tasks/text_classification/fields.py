"""From the fields of a record to a text or a pair, and its label in one of four forms."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bigft.config.errors import BadInput, Problem
from bigft.config.sections import DataConfig
from bigft.config.tasks import ProblemType
from bigft.data.formats.base import MAX_PROBLEMS, Columns, capped, did_you_mean, several
from bigft.data.records import Record

# Tried in this order where the config names no field; "0" and "1" are those of lists.
TEXT_FIELDS = ("text", "sentence", "content", "review", "utterance", "query", "0")
LABEL_FIELDS = ("label", "labels", "category", "categories", "intent", "class", "sentiment",
                "target", "score", "1")  # fmt: skip
PAIRS = (
    *(("premise", "hypothesis"), ("sentence1", "sentence2"), ("text1", "text2")),
    *(("question1", "question2"), ("question", "sentence"), ("query", "passage")),
    *(("query", "document"), ("text_a", "text_b")),
)
SINGLE: ProblemType = "single_label_classification"
MULTI: ProblemType = "multi_label_classification"
REGRESSION: ProblemType = "regression"
SPACED = "have labels with white space around them, which is left out"


@dataclass(frozen=True, slots=True)
class Found:
    """What the labels of the training data are.

    problem_type: as transformers' configs name it.  why: what tells, for a note.
    labels: class names by id; of a regression the name of its column.
    """

    problem_type: ProblemType
    why: str
    labels: list[str]


def columns(data: DataConfig) -> frozenset[str]:
    """The fields that `normalised` may take."""
    texts = {*TEXT_FIELDS, *(name for pair in PAIRS for name in pair)}
    named = {str(name) for name in several(data.text_column_name)} or texts
    labels = {str(name) for name in several(data.label_column_name)} or {*LABEL_FIELDS}
    return frozenset(named | labels | {str(name) for name in several(data.group_column_name)})


def normalised(record: Record, data: DataConfig) -> Record:
    """The record as {"text", "label"} and, of a pair, "pair"; "group" where the config names one.

    label: as the file writes it: a text, a number, true or false, or a list of texts; of several
    columns a mapping of their names to 0, 1 or None.
    Raises BadInput, naming file and line, for what is no text, no label or empty.
    """
    fields: dict[str, Any] = dict(zip(("text", "pair"), texts(record, data), strict=False))
    if isinstance(data.label_column_name, tuple):
        fields["label"] = {
            str(name): _zero_or_one(record, str(name)) for name in data.label_column_name
        }
    else:
        name = _field(record, "label_column_name", data.label_column_name, LABEL_FIELDS)
        fields["label"] = _label(record, name)
    if data.group_column_name is not None:
        group = record.fields[_field(record, "group_column_name", data.group_column_name, ())]
        if not isinstance(group, str | int):
            found = f"the group {group!r} is no text or number"
            raise BadInput(Problem(record.where, found, "name what the text belongs to"))
        fields["group"] = str(group)
    notes = record.notes
    if isinstance(fields["label"], str) and fields["label"] != fields["label"].strip():
        fields["label"] = fields["label"].strip()
        notes = (*notes, SPACED)
    return replace(record, fields=fields, notes=notes)


def texts(record: Record, data: DataConfig) -> list[str]:
    """The text of a record, or the two of a pair."""
    names = _text_fields(record, data.text_column_name)
    values = [record.fields[name] for name in names]
    if len(names) == 1 and _are_two_texts(values[0]):  # of `bigft predict`, and of files
        values = values[0]
    for name, value in zip([names[0], names[-1]], values, strict=False):
        if not isinstance(value, str):
            found = f"the field {name} is {type(value).__name__}, not a text"
            raise BadInput(Problem(record.where, found, "write it as a string"))
        if not value.strip():
            found = f"the text in {name} is empty"
            raise BadInput(Problem(record.where, found, "write a text, or delete the record"))
    return values


def given(record: Record) -> dict[str, str]:
    """Of a record in the one form its text, and of a pair the second one."""
    return {name: record.fields[name] for name in ("text", "pair") if name in record.fields}


def _are_two_texts(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(v, str) for v in value)


def _text_fields(record: Record, asked: Columns) -> list[str]:
    if asked is not None:
        return [_field(record, "text_column_name", name, ()) for name in several(asked)]
    there = record.fields
    for pair in PAIRS:
        if {*pair} <= {*there} and not {*TEXT_FIELDS[:2]} & {*there}:
            return [*pair]
    return [_field(record, "text_column_name", None, TEXT_FIELDS)]


def _field(record: Record, option: str, asked: str | int | None, usual: Sequence[str]) -> str:
    names = list(usual) if asked is None else [str(asked)]
    found = next((name for name in names if name in record.fields), None)
    if found is not None:
        return found
    what = f"no field {' or '.join(names)}; there are {', '.join(record.fields) or 'none'}"
    near = "" if asked is None else did_you_mean(str(asked), list(record.fields))
    fix = f"{near or 'name the field'} (data.{option})"
    raise BadInput(Problem(record.where, what, fix))


def _zero_or_one(record: Record, name: str) -> int | None:
    value = record.fields[_field(record, "label_column_name", name, ())]
    if value is None or value == "":
        return None
    if value in (0, 1, True, False, "0", "1"):
        return int(value)
    found = f"{value!r} in the column {name}, which is one label of several"
    raise BadInput(Problem(record.where, found, "write 1 where it applies, 0 where it does not"))


def _label(record: Record, name: str) -> Any:
    value = record.fields[name]
    fix = "write a label, or delete the record"
    if value is None or (isinstance(value, str) and not value.strip()):
        raise BadInput(Problem(record.where, f"no label in {name}", fix))
    if isinstance(value, float) and not math.isfinite(value):
        raise BadInput(Problem(record.where, f"the label in {name} is {value}", fix))
    if isinstance(value, list):
        bad = [label for label in value if not isinstance(label, str | int) or label == ""]
        if bad:
            found = f"{bad[0]!r} in the list {name} is no label"
            raise BadInput(Problem(record.where, found, "write a list of labels"))
        return [str(label) for label in value]
    if not isinstance(value, str | int | float):
        found = f"the label in {name} is {type(value).__name__}"
        raise BadInput(Problem(record.where, found, "write a text, a number, or a list of labels"))
    return value


# -- what kind of labels they are ---------------------------------------------------------------


def kind_of(label: Any) -> str:
    """What a label is, in words."""
    if isinstance(label, dict):
        return "columns of 0 and 1"
    if isinstance(label, list):
        return "a list"
    if isinstance(label, bool):
        return "true or false"
    if isinstance(label, int):
        return "an integer"
    return "a real number" if isinstance(label, float) else "a text"


def found_in(records: Sequence[Record], data: DataConfig, asked: ProblemType | None) -> Found:
    """What the labels of the training records are.

    asked: what the config or the model says they are; None: to be found.
    Raises BadInput, naming file and line, where they are of several kinds, or not what is asked.
    """
    kinds = Counter(kind_of(record.fields["label"]) for record in records)
    are_numbers = {*kinds} <= {"an integer", "a real number"}
    if len(kinds) > 1 and not are_numbers:
        raise BadInput(_mixed(records, kinds))
    labels = [record.fields["label"] for record in records]
    kind = "a real number" if are_numbers and kinds["a real number"] else next(iter(kinds))
    if kind in ("a list", "columns of 0 and 1"):
        found, why = MULTI, f"each label is {kind}"
    elif kind == "a real number" or (kind == "a text" and _are_real_numbers(labels)):
        found, why = REGRESSION, "labels are real numbers"
    else:
        found, why = SINGLE, f"each label is {kind}"
    if asked is not None and asked != found:
        found = _as_asked(records, kind, found, asked)
        why = "task.problem_type says so"
    if found == REGRESSION:
        return Found(found, why, [_name_of(data)])
    names = list(data.label_list or ()) or _names(labels)
    why += f", {len(names)} in all"
    return Found(found, why, names)


def _as_asked(
    records: Sequence[Record], kind: str, found: ProblemType, asked: ProblemType
) -> ProblemType:
    """asked, where the labels can be read as that."""
    if asked == REGRESSION:
        no_number = [one for one in records if _number(one.fields["label"]) is None]
        if not no_number:
            return asked
        what = f"the label {no_number[0].fields['label']!r} is no number"
        fix = "write numbers, or set another task.problem_type"
        raise BadInput(Problem(no_number[0].where, what, fix))
    if asked == SINGLE and found == REGRESSION:
        return asked  # each number is a class
    what = f"{asked}, but each label is {kind}"
    raise BadInput(Problem("task.problem_type", what, f"set it to {found}, or to auto"))


def _mixed(records: Sequence[Record], kinds: Counter[str]) -> list[Problem]:
    (usual, _), *_ = kinds.most_common(1)
    problems = []
    for record in records:
        label = record.fields["label"]
        if kind_of(label) != usual:
            found = f"the label {label!r} is {kind_of(label)}, where most are {usual}"
            problems.append(Problem(record.where, found, "write all labels alike"))
            if len(problems) > MAX_PROBLEMS:
                break
    return capped(problems, records[0].file)


def _are_real_numbers(labels: Iterable[str]) -> bool:
    """Whether all are numbers, as in a table of text, and not all of them whole ones."""
    numbers = [_number(label) for label in labels]
    return None not in numbers and any(number != int(number) for number in numbers if number)


def _number(label: Any) -> float | None:
    if isinstance(label, list | dict):
        return None
    try:
        number = float(label)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _name_of(data: DataConfig) -> str:
    """What a regression calls its number."""
    name = data.label_column_name
    return name if isinstance(name, str) else "score"


def _names(labels: Sequence[Any]) -> list[str]:
    """Labels by id: columns in their order, numbers by size, the rest sorted as text."""
    if isinstance(labels[0], dict):
        return list(labels[0])
    if isinstance(labels[0], list):
        return sorted({name for label in labels for name in label})
    distinct = {*labels}
    if all(isinstance(label, str) for label in distinct):
        numbers = {label: _number(label) for label in distinct}
        if None not in numbers.values():  # "10" behind "2"
            return sorted(distinct, key=lambda label: (numbers[label], label))
        return sorted(distinct)
    return [str(label) for label in sorted(distinct)]


def target_of(
    record: Record, problem_type: ProblemType, ids: dict[str, int], are_given: bool
) -> list[float]:
    """What is learnt of a record: a class id; of several labels 0, 1 or -100 for each; a number.

    are_given: whether the labels are those of data.label_list: an integer is then an index.
    Raises BadInput, naming file and line, for a label that is none.
    """
    label = record.fields["label"]
    if problem_type == REGRESSION:
        number = _number(label)
        if number is None:
            found = f"the label {label!r} is no number, as in the training data"
            raise BadInput(Problem(record.where, found, "write a number"))
        return [number]
    if isinstance(label, dict):
        return [-100 if value is None else value for value in label.values()]
    if problem_type == SINGLE and isinstance(label, list):
        found = f"the label {label!r} is a list, where those of the training data are not"
        raise BadInput(Problem(record.where, found, "write one label"))
    names = label if isinstance(label, list) else [label]
    numbers: list[float] = [_id_of(record, name, ids, are_given) for name in names]
    if problem_type == SINGLE:
        return numbers
    return [int(number in numbers) for number in range(len(ids))]


def _id_of(record: Record, label: Any, ids: dict[str, int], are_given: bool) -> int:
    name = str(label)
    if name in ids:
        return ids[name]
    is_index = isinstance(label, int) and not isinstance(label, bool)
    if are_given and is_index and 0 <= label < len(ids):
        return label
    known = ", ".join([*ids][:20])
    found = f"the label {name!r} does not occur in the training data ({known})"
    if are_given:
        found = f"the label {name!r} is not in data.label_list ({known})"
    fix = did_you_mean(name, [*ids]) or "correct it, or name every label in data.label_list"
    raise BadInput(Problem(record.where, found, fix))
