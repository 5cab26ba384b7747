"""One form for every way to write a question: its context, and the answers that stand in it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from bigft.config.errors import BadInput, Problem
from bigft.config.sections import DataConfig, RunConfig
from bigft.config.tasks import QuestionAnswering
from bigft.data.formats.base import did_you_mean
from bigft.data.records import Record
from bigft.tasks.usable import usable

TEXTS, ANSWERS = ("question", "context"), "answers"
LAYOUT = 'write "answers": {"text": ["..."], "answer_start": [0]}'
SEVERAL = "have several answers: the first one is trained on, and all count in evaluation"
SHOWN = 60  # characters of a text in a message


class Columns(NamedTuple):
    """texts: of question and context."""

    texts: tuple[str, str] = TEXTS
    answers: str = ANSWERS

    @classmethod
    def of(cls, data: DataConfig) -> Columns:
        named = data.text_column_name or TEXTS
        assert isinstance(named, tuple)
        label = ANSWERS if data.label_column is None else data.label_column
        return cls((str(named[0]), str(named[1])), str(label))

    @property
    def all(self) -> frozenset[str]:
        """The fields that `questions` may take."""
        return frozenset({"id", *self.texts, self.answers, "is_impossible"})


def questions(
    records: Iterable[Record], config: RunConfig, split: str, notes: list[str] | None = None
) -> Iterator[Record]:
    """The records as {"id", "question", "context", "answers"}, a list of {"text", "answer_start"}.

    Answers may also be written as `datasets` has them: {"text": [...], "answer_start": [...]}. A
    record without an id gets its number.
    Refused are answers that do not stand in the context where they are said to, questions without
    an answer unless task.version_2_with_negative, and an id that stands twice in a file: see
    `usable`.
    """
    task = config.task
    assert isinstance(task, QuestionAnswering)
    columns = Columns.of(config.data)
    first_with: dict[tuple[str, str], Record] = {}  # by file and id

    def question(record: Record) -> Iterator[Record]:
        fields, number = record.fields, id_of(record)
        texts = texts_of(fields, record.where, columns.texts, f"question {number}: ")
        first = first_with.setdefault((record.file, number), record)
        if first is not record:
            what = f"question {number}: its id is also that of {first.where}"
            raise BadInput(Problem(record.where, what, "give each question its own id"))
        answers = _answers(record, number, columns.answers)
        if fields.get("is_impossible") is True and answers:
            what = f"question {number}: it has answers, but is_impossible is true"
            raise BadInput(Problem(record.where, what, "correct one of them"))
        if not answers and not task.version_2_with_negative:
            what = f"question {number}: it has no answer"
            fix = "set task.version_2_with_negative to true if questions may have none"
            raise BadInput(Problem(record.where, what, fix))
        for answer in answers:
            _check_place(record, number, texts["context"], **answer)
        has_several = any(answer != answers[0] for answer in answers)
        found = (*record.notes, SEVERAL) if has_several and split == "train" else record.notes
        yield replace(record, fields={"id": number, **texts, "answers": answers}, notes=found)

    return usable(records, question, split, config.data.on_bad_record, notes)


def texts_of(
    fields: Mapping[str, Any],
    where: str,
    columns: tuple[str, str] = TEXTS,
    before: str = "",
) -> dict[str, str]:
    """Question and context. Raises BadInput where one is missing or blank.

    before: of what messages say.
    """
    texts = {}
    for name, column in zip(TEXTS, columns, strict=True):
        if column not in fields:
            fix = did_you_mean(column, list(fields))
            fix = fix or f"write {json.dumps(dict.fromkeys(columns, '...'))}"
            what = f"no field {column!r}; there are {', '.join(fields) or 'none'}"
            raise BadInput(Problem(where, what, fix))
        texts[name] = fields[column]
        if not isinstance(texts[name], str):
            what = f"{before}the {name} is no text but {_shown(texts[name])}"
            raise BadInput(Problem(where, what, "write a text"))
        if not texts[name].strip():
            what = f"{before}the {name} is empty"
            raise BadInput(Problem(where, what, "write one, or leave the record out"))
    return texts


def id_of(record: Record) -> str:
    """As the official predictions name a question: its id as text, or its number."""
    number = record.fields.get("id")
    return str(record.index if number is None else number)


def _answers(record: Record, number: str, column: str) -> list[dict[str, Any]]:
    if column not in record.fields:
        near = did_you_mean(column, list(record.fields))
        what = f"question {number}: no field {column!r}"
        fix = near or f"{LAYOUT}, or [] where there is none"
        raise BadInput(Problem(record.where, what, fix))
    written = record.fields[column]
    if isinstance(written, Mapping):
        texts, starts = written.get("text"), written.get("answer_start")
        if not isinstance(texts, list) and not isinstance(starts, list):
            texts, starts = [texts], [starts]
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            what = f"question {number}: answers has not as many answer_start as text"
            raise BadInput(Problem(record.where, what, LAYOUT))
        written = [
            {"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)
        ]
    if not isinstance(written, list):
        what = f"question {number}: answers is {_shown(written)}"
        raise BadInput(Problem(record.where, what, LAYOUT))
    return [_answer(record, number, answer) for answer in written]


def _answer(record: Record, number: str, answer: Any) -> dict[str, Any]:
    what = ""
    if isinstance(answer, str):
        what = f"the answer {_shown(answer)} says not where in the context it stands"
    elif not isinstance(answer, Mapping):
        what = f"an answer is {_shown(answer)}"
    elif not isinstance(answer.get("text"), str):
        what = f"the text of an answer is {_shown(answer.get('text'))}"
    elif not isinstance(answer.get("answer_start"), int) or isinstance(
        answer["answer_start"], bool
    ):
        what = f"the answer_start of {_shown(answer['text'])} is no whole number"
        what += f" but {_shown(answer.get('answer_start'))}"
    if what:
        raise BadInput(Problem(record.where, f"question {number}: {what}", LAYOUT))
    if not answer["text"].strip():
        what = f"question {number}: an answer is empty"
        raise BadInput(Problem(record.where, what, "write [] for a question without an answer"))
    return {"text": answer["text"], "answer_start": answer["answer_start"]}


def _check_place(record: Record, number: str, context: str, text: str, answer_start: int) -> None:
    """Raises BadInput unless the answer stands there, character by character."""
    if answer_start >= 0 and context.startswith(text, answer_start):
        return
    there = context[answer_start:][: len(text)] if answer_start >= 0 else ""
    what = f"question {number}: the answer {_shown(text)} does not stand at character "
    what += f"{answer_start} of the context ({_shown(there) if there else 'nothing does'})"
    places = [at for at in range(len(context)) if context.startswith(text, at)]
    nearest = min(places, key=lambda at: abs(at - answer_start), default=None)
    fix = "correct it, or set data.on_bad_record to drop"
    if nearest is not None:
        fix = f"it stands at {nearest}: {fix}"
    raise BadInput(Problem(record.where, what, fix))


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
