"""Questions and their task, as its tests make them."""

from __future__ import annotations

from typing import Any

from tiny import letter_tokenizer

from bigft.config.sections import RunConfig
from bigft.data.records import Record
from bigft.models.limits import Limit
from bigft.tasks.protocol import Setting
from bigft.tasks.question_answering import QuestionAnswering

CUT_BY = "data.max_seq_length"


def config(data: dict[str, Any] | None = None, **options: Any) -> RunConfig:
    return RunConfig.model_validate(
        {
            "task": {"name": "question-answering", **options},
            "model": {"model_name_or_path": "unused"},
            "data": {"validation_file": "dev.json", **(data or {})},
            "train": {"output_dir": "unused"},
        }
    )


def task(tokenizer: Any = None, max_length: int | None = None, **options: Any) -> QuestionAnswering:
    limit = None if max_length is None else Limit(max_length, CUT_BY)
    setting = Setting(config(**options), tokenizer or letter_tokenizer(), limit=limit)
    return QuestionAnswering(setting)


def record(question: str, context: str, *answers: str, index: int = 0) -> Record:
    """answers: each where it stands first in the context."""
    found = [{"text": text, "answer_start": context.index(text)} for text in answers]
    fields = {"id": f"q{index}", "question": question, "context": context, "answers": found}
    return Record(index, fields, "a.json", index + 1)
