"""One label per word: named entities, parts of speech, chunks."""

from __future__ import annotations

from bigft.tasks.token_classification.task import TokenClassification

__all__ = ["TokenClassification"]
