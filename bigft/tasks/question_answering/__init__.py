"""A span of the context as the answer to a question."""

from __future__ import annotations

from bigft.tasks.question_answering.task import QuestionAnswering

__all__ = ["QuestionAnswering"]
