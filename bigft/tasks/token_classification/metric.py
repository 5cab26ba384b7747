"""What a tagging run reports: entities as the field counts them, and the words one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bigft.data.records import Record
from bigft.data.tag_schemes import are_bio, split_tag
from bigft.tasks.protocol import Prediction
from bigft.tasks.scores.tables import TableRow
from bigft.tasks.token_classification.entities import EntityMetric
from bigft.tasks.token_classification.words import TokenMetric


class TaggingMetric:
    """Entity scores for BIO labels, word scores for plain ones; a report of both.

    labels: every tag that may occur.  per_type: whether `compute` holds each type's scores too.
    """

    def __init__(self, labels: Sequence[str], per_type: bool) -> None:
        self._per_type = per_type
        self._words = TokenMetric(labels, "Words, as scikit-learn's classification_report")
        self._entities = EntityMetric(labels) if are_bio(labels) else None
        self._names = self._entities.types if self._entities else list(labels)

    def update(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> None:
        self._words.update(predictions, records)
        if self._entities:
            self._entities.update(predictions, records)

    def state(self) -> dict[str, Any]:
        entities = {"entities": self._entities.state()} if self._entities else {}
        return {"words": self._words.state(), **entities}

    def merge(self, state: dict[str, Any]) -> None:
        self._words.merge(state["words"])
        if self._entities:
            self._entities.merge(state["entities"])

    def compute(self) -> dict[str, float]:
        scores = (self._entities or self._words).compute()
        single = {
            f"{name}_{key}": scores.pop(f"{name}_{key}")
            for name in self._names
            for key in TableRow._fields
        }
        return scores | single if self._per_type else scores

    def report(self) -> str:
        entities = [self._entities.report()] if self._entities else []
        return "\n\n".join([*entities, self._words.report()])


def entities(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """(type, first word, end) of each entity of one BIO tagging; a stray I- begins one."""
    found: list[tuple[str, int, int]] = []
    for word, tag in enumerate(tags):
        prefix, name = split_tag(tag)
        if prefix == "I" and found and found[-1][0] == name and found[-1][2] == word:
            found[-1] = (name, found[-1][1], word + 1)
        elif prefix in ("B", "I"):
            found.append((name, word, word + 1))
    return found
