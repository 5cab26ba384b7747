"""Scores of an order: how well numbers tell positives from negatives, or rank texts.

What is undefined is NaN: without a positive, without a negative, of constants.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

RECORDS = 50_000  # scores that a rank holds one by one; of more it holds counts by BINS
BINS = 4096


class Groups(NamedTuple):
    """Scores from the highest down, equal ones as one, with the positives and negatives of each.

    are_bins: whether scores within 1 / BINS are taken for equal.
    """

    scores_K: NDArray[np.float64]
    positives_K: NDArray[np.int64]
    negatives_K: NDArray[np.int64]
    are_bins: bool = False


class Scores:
    """Probabilities, each of a positive or a negative: what ranks exchange of one label."""

    def __init__(self) -> None:
        self._scores: list[float] = []
        self._positive: list[bool] = []
        self._bins: NDArray[np.int64] | None = None  # [2, BINS]: negatives, positives

    def add(self, score: float, is_positive: bool) -> None:
        """score: in [0, 1]."""
        self._scores.append(score)
        self._positive.append(is_positive)
        if self._bins is not None or len(self._scores) > RECORDS:
            self._count()

    def _count(self) -> None:
        """From single scores to bins."""
        if self._bins is None:
            self._bins = np.zeros((2, BINS), np.int64)
        places = np.minimum((np.array(self._scores) * BINS).astype(np.int64), BINS - 1)
        np.add.at(self._bins, (np.array(self._positive, np.int64), places), 1)
        self._scores, self._positive = [], []

    def state(self) -> dict[str, Any]:
        if self._bins is not None:
            return {"bins": self._bins.tolist()}
        return {"scores": self._scores, "positive": self._positive}

    def merge(self, state: dict[str, Any]) -> None:
        if "bins" in state:
            self._count()
            assert self._bins is not None
            self._bins += np.array(state["bins"], np.int64)
            return
        self._scores += state["scores"]
        self._positive += state["positive"]
        if self._bins is not None or len(self._scores) > RECORDS:
            self._count()

    def groups(self) -> Groups:
        if self._bins is not None:
            negatives, positives = self._bins[:, ::-1]
            there = (negatives + positives).nonzero()[0]
            middles = (BINS - there - 0.5) / BINS
            return Groups(middles, positives[there], negatives[there], are_bins=True)
        return grouped(self._scores, self._positive)


def grouped(scores: Sequence[float] | Any, are_positive: Sequence[bool] | Any) -> Groups:
    values, places = np.unique(-np.array(scores, np.float64), return_inverse=True)
    counts = np.zeros((2, len(values)), np.int64)
    np.add.at(counts, (np.array(are_positive, np.int64), places), 1)
    return Groups(-values, counts[1], counts[0])


def roc_auc(groups: Groups) -> float:
    """The probability that a positive has a higher score than a negative; equal ones count half.

    Of bins the error is at most half the share of pairs of a positive and a negative in one bin.
    """
    positives, negatives = groups.positives_K.sum(), groups.negatives_K.sum()
    if not positives or not negatives:
        return math.nan
    below = negatives - groups.negatives_K.cumsum()
    wins = (groups.positives_K * (below + groups.negatives_K / 2)).sum()
    return float(wins / (positives * negatives))


def average_precision(groups: Groups) -> float:
    """The mean over positives of the precision at their score, as scikit-learn has it."""
    positives = groups.positives_K.sum()
    if not positives:
        return math.nan
    hits = groups.positives_K.cumsum()
    precision = hits / (hits + groups.negatives_K.cumsum())
    return float((groups.positives_K * precision).sum() / positives)


def average_precision_error(groups: Groups) -> float:
    """How far the average precision of bins may be from that of the single scores."""
    positives = groups.positives_K.sum()
    if not groups.are_bins or not positives:
        return 0.0
    hits, misses = groups.positives_K.cumsum(), groups.negatives_K.cumsum()
    before = misses - groups.negatives_K
    highest = hits / (hits + before)
    first = hits - groups.positives_K + 1
    lowest = first / (first + misses)
    taken = hits / (hits + misses)
    error = np.maximum(highest - taken, taken - lowest)
    return float((groups.positives_K * error).sum() / positives)


def best_threshold(groups: Groups) -> tuple[float, float]:
    """The threshold with the highest F1, halfway to the next score below, and that F1; of equal
    ones the highest threshold. NaN without a positive: no threshold is better than another."""
    positives = groups.positives_K.sum()
    if not positives:
        return math.nan, math.nan
    hits = groups.positives_K.cumsum()
    f1 = 2 * hits / (hits + groups.negatives_K.cumsum() + positives)
    best = int(f1.argmax())
    below = groups.scores_K[best + 1] if best + 1 < len(f1) else 0.0
    return float((groups.scores_K[best] + below) / 2), float(f1[best])


def mean_of_defined(scores: Sequence[float]) -> float:
    """NaN where none is defined."""
    known = [score for score in scores if not math.isnan(score)]
    return sum(known) / len(known) if known else math.nan


def spearman(one: Sequence[float] | Any, other: Sequence[float] | Any) -> float:
    """Pearson's correlation of the ranks; equal numbers have the mean of theirs."""
    return pearson(_ranks(one), _ranks(other))


def pearson(one: Sequence[float] | Any, other: Sequence[float] | Any) -> float:
    a, b = np.array(one, np.float64), np.array(other, np.float64)
    if len(a) < 2 or (a == a[0]).all() or (b == b[0]).all():
        return math.nan
    a, b = a - a.mean(), b - b.mean()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def _ranks(numbers: Sequence[float]) -> NDArray[np.float64]:
    _, places, counts = np.unique(np.array(numbers), return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return np.asarray((last - (counts - 1) / 2)[places])


class Ranked(NamedTuple):
    """One group: the score that each text was given, and its gain: what it is worth, 0 nothing."""

    scores: NDArray[np.float64]
    gains: NDArray[np.float64]

    def auc(self) -> float:
        """Of texts that are worth something against the others."""
        return roc_auc(grouped(self.scores, self.gains > 0))

    def reciprocal_rank(self) -> float:
        """1 / the rank of the first text that is worth something, behind others of its score."""
        positive = self.gains > 0
        if not positive.any():
            return math.nan
        best = self.scores[positive].max()
        ahead = (self.scores > best).sum() + ((self.scores == best) & ~positive).sum()
        return float(1 / (1 + ahead))

    def ndcg(self, k: int) -> float:
        """Gains over the logarithm of their rank, to that of the best order, in the first k ranks;
        of equal scores the mean of all orders counts.

        Source: Järvelin and Kekäläinen, Cumulated gain-based evaluation of IR techniques (2002);
        of ties McSherry and Najork (2008).
        """
        discount = np.zeros(len(self.gains))
        discount[:k] = 1 / np.log2(np.arange(2, min(k, len(discount)) + 2))
        best = np.sort(self.gains)[::-1] @ discount
        if not best > 0 or (self.gains < 0).any():
            return math.nan
        _, places, counts = np.unique(-self.scores, return_inverse=True, return_counts=True)
        gains = np.bincount(places, self.gains) / counts
        ends = counts.cumsum()
        cumulated = np.concatenate([[0.0], discount.cumsum()])
        return float(gains @ (cumulated[ends] - cumulated[ends - counts]) / best)
