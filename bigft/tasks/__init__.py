"""The tasks by name."""

from __future__ import annotations

from bigft.tasks.token_classification import TokenClassification

TASKS = {
    "token-classification": TokenClassification,
}
