"""How `bigft init` finds questions and their contexts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bigft.data.records import Record
from bigft.tasks.protocol import Certainty, Guess, Start
from bigft.tasks.question_answering.fields import TEXTS

NEGATIVE = {"task.version_2_with_negative": True}


def guesses(paths: Sequence[str], format: str, records: Sequence[Record]) -> Iterator[Guess]:
    if not {*TEXTS, "answers"} <= {*records[0].fields}:
        return
    note = "question, context and answers"
    if not any("is_impossible" in record.fields for record in records):
        yield Guess(Certainty.KNOWN, comment=note)
    yield Guess(Certainty.KNOWN, NEGATIVE, "some questions have no answer")


START = Start(
    "SQuAD's JSON; question, context, answers {text: [...], answer_start: [...]}",
    "bert-base-uncased",
    "for English; for other languages bert-base-chinese, xlm-roberta-base",
    guesses,
)
