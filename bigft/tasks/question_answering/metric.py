"""Exact match and F1, of questions with and without an answer, and the threshold between them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bigft.data.records import Record
from bigft.tasks.protocol import Prediction
from bigft.tasks.question_answering.conventions import Convention, best_of


class Best(NamedTuple):
    """score: a mean over questions, 0 to 100.  threshold: with which it is reached."""

    score: float
    threshold: float


class AnswerMetric:
    """Reads `answers` and `null_score_diff` of predictions, `answers` of records.

    Of each question four numbers are kept and exchanged, so that a threshold can be chosen over
    all: by how much "no answer" is above the best span (null: there is no span), exact match and
    F1 of that span, and whether there is an answer. Sums do not depend on which rank has which
    question.

    may_be_none: whether questions may have no answer.
    threshold: of "no answer"; None: the one with the best F1 on what is measured.
    """

    def __init__(
        self, convention: Convention, may_be_none: bool, threshold: float | None = 0.0
    ) -> None:
        self._convention, self._may_be_none = convention, may_be_none
        self._threshold = threshold
        self._questions: list[list[float | None]] = []

    def update(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> None:
        for prediction, record in zip(predictions, records, strict=True):
            gold = [answer["text"] for answer in record.fields["answers"]]
            spans, diff = prediction["answers"], prediction["null_score_diff"]
            text = spans[0]["text"] if spans else ""
            scores = [
                best_of(score, text, gold)
                for score in (self._convention.exact, self._convention.f1)
            ]
            self._questions.append([diff, *scores, float(bool(gold))])

    def state(self) -> dict[str, Any]:
        return {"questions": self._questions}

    def merge(self, state: dict[str, Any]) -> None:
        self._questions += state["questions"]

    def compute(self) -> dict[str, float]:
        """exact_match and f1, 0 to 100. Where questions may have no answer also those of the
        questions that have one (has_answer_), and that have none (no_answer_): left out where
        there is no such question; null_score_diff_threshold; and the best that any threshold
        reaches: best_exact_match, best_f1, and best_exact_match_threshold, best_f1_threshold.
        """
        scores = self._scores("")
        if not self._may_be_none:
            return scores
        scores |= self._scores("has_answer_", 1.0) | self._scores("no_answer_", 0.0)
        for name, column in (("exact_match", 1), ("f1", 2)):
            best = self._best(column)
            scores |= {f"best_{name}": best.score, f"best_{name}_threshold": best.threshold}
        return scores | {"null_score_diff_threshold": self.threshold}

    @property
    def threshold(self) -> float:
        return self._best(2).threshold if self._threshold is None else self._threshold

    def report(self) -> str:
        scores = self.compute()
        rows = {"all": ""}
        if self._may_be_none:
            rows |= {"with an answer": "has_answer_", "without": "no_answer_"}
        width = max(map(len, rows))
        lines = [f"Answers, as {self._convention.name} scores them", ""]
        lines.append(" " * width + f" {'exact match':>12} {'f1':>8} {'questions':>10}")
        counts = self._counts()
        for name, prefix in rows.items():
            cells = [scores.get(f"{prefix}{score}") for score in ("exact_match", "f1")]
            shown = ["-" if cell is None else f"{cell:.2f}" for cell in cells]
            lines.append(f"{name:>{width}} {shown[0]:>12} {shown[1]:>8} {counts[name]:>10}")
        if self._may_be_none:
            best = self._best(2)
            lines += [
                "",
                f'"no answer" where it is above the best span by more than {self.threshold:.4g}; '
                f"best f1 {best.score:.2f} with {best.threshold:.4g}",
            ]
        return "\n".join(lines)

    def _counts(self) -> dict[str, int]:
        answerable = int(self._table()[:, 3].sum())
        total = len(self._questions)
        return {"all": total, "with an answer": answerable, "without": total - answerable}

    def _table(self) -> NDArray[np.float64]:
        return np.array(self._questions, np.float64).reshape(-1, 4)

    def _scores(self, prefix: str, has_answer: float | None = None) -> dict[str, float]:
        table_Q4 = self._table()
        if has_answer is not None and len(table_Q4):
            table_Q4 = table_Q4[table_Q4[:, 3] == has_answer]
            if not len(table_Q4):
                return {}
        diff_Q, _, _, has_answer_Q = table_Q4.T
        is_none_Q = ~(diff_Q <= self.threshold) if self._may_be_none else np.isnan(diff_Q)
        names = ("exact_match", "f1")
        return {
            f"{prefix}{name}": _mean(np.where(is_none_Q, 1 - has_answer_Q, table_Q4[:, column]))
            for column, name in enumerate(names, 1)
        }

    def _best(self, column: int) -> Best:
        """Over all thresholds; half way between the differences of two questions, so that rounding
        decides none. Of equally good ones the lowest."""
        table_Q4 = self._table()
        if not len(table_Q4):
            return Best(0.0, 0.0)
        order = np.argsort(table_Q4[:, 0], kind="stable")
        diff_Q, score_Q = table_Q4[order, 0], table_Q4[order, column]
        none_Q = 1 - table_Q4[order, 3]
        known = diff_Q[~np.isnan(diff_Q)]  # the others are sorted behind them
        if not len(known):
            return Best(100.0 * _sum(none_Q) / len(none_Q), 0.0)
        # The k questions with the lowest differences are answered, the others are not.
        gains = np.concatenate([[0.0], np.cumsum(score_Q - none_Q)])[: len(known) + 1]
        borders = np.concatenate([[known[0] - 1], known, [known[-1] + 1]])
        is_border = borders[:-1] < borders[1:]
        best = int(np.argmax(np.where(is_border, np.round(gains, 9), -np.inf)))
        total = _sum([*score_Q[:best], *none_Q[best:]])
        return Best(100.0 * total / len(score_Q), float(borders[best] + borders[best + 1]) / 2)


def _mean(scores: NDArray[np.float64]) -> float:
    return 100.0 * _sum(scores) / len(scores) if len(scores) else 0.0


def _sum(scores: Sequence[float] | NDArray[np.float64]) -> float:
    return math.fsum(scores)  # the same in every order
