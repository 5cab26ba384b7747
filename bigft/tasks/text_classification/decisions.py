"""From logits to answers: probabilities, thresholds, labels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from bigft.config.tasks import ProblemType
from bigft.tasks.text_classification.fields import MULTI, REGRESSION


class Decisions:
    """How the answers of a model are chosen among its labels.

    labels: by id.  outside: the id of the label for what is out of scope; None: there is none.
    threshold: a probability, or of several labels one for each; None: the likeliest label is the
        answer, or each that is as likely as not.
    """

    def __init__(
        self,
        problem_type: ProblemType,
        labels: Sequence[str],
        outside: int | None = None,
        threshold: float | Sequence[float] | None = None,
    ) -> None:
        self.problem_type, self.labels, self.outside = problem_type, list(labels), outside
        self.threshold = threshold

    def probabilities(self, logits_C: Sequence[float]) -> list[float]:
        """softmax, or of several labels the sigmoid of each; the numbers of a regression as they
        are."""
        logits = np.array(logits_C, np.float64)
        if self.problem_type == REGRESSION:
            return logits.tolist()
        if self.problem_type == MULTI:
            return ((1 + np.tanh(logits / 2)) / 2).tolist()  # the sigmoid, for any logit
        powers = np.exp(logits - logits.max())
        return (powers / powers.sum()).tolist()

    def one(self, probabilities_C: Sequence[float]) -> int:
        """The id of the answer where a text has one label."""
        if self.outside is None or self.threshold is None:
            return int(np.argmax(probabilities_C))
        assert isinstance(self.threshold, float)
        inside = self.best_inside(probabilities_C)
        return inside if probabilities_C[inside] >= self.threshold else self.outside

    def best_inside(self, probabilities_C: Sequence[float]) -> int:
        """The likeliest of the labels that are in scope."""
        inside = list(probabilities_C)
        if self.outside is not None:
            inside[self.outside] = -math.inf
        return int(np.argmax(inside))

    def several(self, probabilities_C: Sequence[float]) -> list[bool]:
        """Of each label whether a text has it."""
        threshold = 0.5 if self.threshold is None else self.threshold
        at_least = threshold if isinstance(threshold, list) else [threshold] * len(self.labels)
        return [p >= least for p, least in zip(probabilities_C, at_least, strict=True)]
