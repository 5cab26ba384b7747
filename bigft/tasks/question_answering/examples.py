"""Questions with their answers in context: what `bigft check` shows."""

from __future__ import annotations

from collections.abc import Iterator

from bigft.data.records import Record
from bigft.data.split import PreparedSplit

QUESTIONS = 3
AROUND = 40  # characters on each side of an answer


def examples(train: PreparedSplit) -> Iterator[str]:
    yield "the first questions of train, answers between [ and ] as they stand in the context:"
    yield from (f"  {asked(train.record(at))}" for at in range(train.num_records)[:QUESTIONS])


def asked(record: Record) -> str:
    """The question, and its first answer in context."""
    question, context = record.fields["question"], record.fields["context"]
    if not record.fields["answers"]:
        return f"{question}  (no answer)"
    answer = record.fields["answers"][0]
    start, end = answer["answer_start"], answer["answer_start"] + len(answer["text"])
    before, behind = context[max(0, start - AROUND) : start], context[end : end + AROUND]
    left, right = "... " * (start > AROUND), " ..." * (end + AROUND < len(context))
    return " ".join(f"{question}  {left}{before}[{answer['text']}]{behind}{right}".split())
