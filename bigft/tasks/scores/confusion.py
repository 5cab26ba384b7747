"""Scores of a confusion matrix, as scikit-learn's classification_report has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bigft.tasks.scores.tables import EMPTY_ROW, TableRow

SUMMARY = ("accuracy", "macro avg", "weighted avg")


def table_rows(confusion_CC: NDArray[np.int64], labels: Sequence[str]) -> dict[str, TableRow]:
    """By name each label that occurs in gold or predictions, then SUMMARY over those labels.

    confusion_CC: [gold, predicted].  A quotient without a denominator is 0.
    """
    names = np.array(labels, dtype=object)
    hits, gold, predicted = confusion_CC.diagonal(), confusion_CC.sum(1), confusion_CC.sum(0)
    precision, recall = _quotient(hits, predicted), _quotient(hits, gold)
    f1 = _quotient(2 * hits, gold + predicted)
    occurs = (gold + predicted).nonzero()[0]
    occurs = occurs[names[occurs].argsort()]
    if not len(occurs):
        return dict.fromkeys(SUMMARY, EMPTY_ROW)
    scores = np.stack([precision, recall, f1], axis=1)[occurs]
    support, number = gold[occurs], int(gold.sum())
    rows = {
        label: _row(of_label, count)
        for label, of_label, count in zip(names[occurs], scores, support, strict=True)
    }
    accuracy = (hits.sum() / number,) * 3
    averages = accuracy, scores.mean(0), np.average(scores, axis=0, weights=support)
    return rows | {
        name: _row(average, number) for name, average in zip(SUMMARY, averages, strict=True)
    }


def matthews_correlation(confusion_CC: NDArray[np.int64]) -> float:
    """In [-1, 1]; NaN where gold or predictions are of one class.

    Source: Gorodkin, Comparing two K-category assignments by a K-category correlation coefficient
    (2004).
    """
    gold, predicted = confusion_CC.sum(1).astype(float), confusion_CC.sum(0).astype(float)
    number = gold.sum()
    covariance = confusion_CC.trace() * number - gold @ predicted
    spread = (number**2 - predicted @ predicted) * (number**2 - gold @ gold)
    return float(covariance / np.sqrt(spread)) if spread > 0 else float("nan")


def _row(scores: Iterable[float], support: int) -> TableRow:
    precision, recall, f1 = map(float, scores)
    return TableRow(precision, recall, f1, int(support))


def _quotient(numerators: NDArray[np.int64], denominators: NDArray[np.int64]) -> NDArray[Any]:
    """0 where there is no denominator."""
    return numerators / np.maximum(denominators, 1)
