"""The tasks by name."""

from __future__ import annotations

from bigft.tasks.protocol import Task
from bigft.tasks.token_classification import TokenClassification

TASKS: dict[str, type[Task]] = {
    "token-classification": TokenClassification,
}
