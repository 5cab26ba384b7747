"""Texts of a group ranked against each other: what a query finds, what a user is shown."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import numpy as np

from bigft.config.errors import BadInput, Problem
from bigft.data.records import Record
from bigft.tasks.protocol import Metric, Prediction
from bigft.tasks.scores.ranking import Ranked, mean_of_defined
from bigft.tasks.text_classification.decisions import Decisions
from bigft.tasks.text_classification.fields import MULTI, REGRESSION
from bigft.tasks.text_classification.metric import Tunable


class GroupedMetric:
    """Another metric, and AUC, MRR and NDCG within the groups of data.group_column_name.

    The score of a text is the number that a regression gives it, or the mean of what labels are
    worth, by their probabilities; its gain is what its own label is worth: a label that is a number
    that, and of two labels the second 1.

    Ranks exchange group, score and gain of each text, 24 bytes: a group is scored whole.
    """

    def __init__(self, inner: Metric, decisions: Decisions, k: int) -> None:
        """k: the ranks that NDCG looks at. Raises BadInput for labels that are worth nothing."""
        self._inner, self._k = inner, k
        self._worth = None
        if decisions.problem_type != REGRESSION:
            self._worth = _worth(decisions)
        self._texts: list[tuple[int, float, float]] = []  # group, score, gain

    def update(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> None:
        self._inner.update(predictions, records)
        for prediction, record in zip(predictions, records, strict=True):
            if self._worth is None:
                score, gain = prediction["value"], prediction["target"][0]
            else:
                score = float(np.dot(self._worth, prediction["probabilities"]))
                gain = self._worth[prediction["target"][0]]
            self._texts.append((_hash(record.fields["group"]), score, gain))

    def state(self) -> dict[str, Any]:
        return {"inner": self._inner.state(), "texts": self._texts}

    def merge(self, state: dict[str, Any]) -> None:
        self._inner.merge(state["inner"])
        self._texts += map(tuple, state["texts"])

    def tuned(self) -> float | list[float]:
        assert isinstance(self._inner, Tunable)
        return self._inner.tuned()

    def _groups(self) -> list[Ranked]:
        found: dict[int, list[tuple[float, float]]] = defaultdict(list)
        for group, score, gain in self._texts:
            found[group].append((score, gain))
        return [Ranked(*np.array(texts).T) for texts in found.values()]

    def compute(self) -> dict[str, float]:
        """group_auc, mrr, ndcg_at_<k>: means over the groups for which they are defined."""
        groups = self._groups()
        return {
            **self._inner.compute(),
            "group_auc": mean_of_defined([group.auc() for group in groups]),
            "mrr": mean_of_defined([group.reciprocal_rank() for group in groups]),
            f"ndcg_at_{self._k}": mean_of_defined([group.ndcg(self._k) for group in groups]),
        }

    def report(self) -> str:
        groups = self._groups()
        without = sum(math.isnan(group.reciprocal_rank()) for group in groups)
        alike = sum(math.isnan(group.auc()) for group in groups) - without
        lines = [self._inner.report(), "", f"{len(groups)} groups of {len(self._texts)} texts"]
        if without:
            lines.append(f"{without} have no text that is worth anything: left out of all means")
        if alike:
            lines.append(f"{alike} have no text that is worth nothing: left out of group_auc")
        return "\n".join(lines)


def _worth(decisions: Decisions) -> list[float]:
    try:
        worth = [float(label) for label in decisions.labels]
    except ValueError:
        worth = [0.0, 1.0]
    if decisions.problem_type == MULTI or len(worth) != len(decisions.labels) or min(worth) < 0:
        what = f"given, but what are the labels worth ({', '.join(decisions.labels[:5])})?"
        fix = "give two labels, numbers from 0 on, or leave it out"
        raise BadInput(Problem("data.group_column_name", what, fix))
    return worth


def _hash(group: str) -> int:
    return int.from_bytes(blake2b(group.encode(), digest_size=8).digest())
