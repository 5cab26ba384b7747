"""Areas, precisions, thresholds and ranks are scikit-learn's and scipy's; shards change nothing."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import (
    average_precision_score,
    f1_score,
    matthews_corrcoef,
    ndcg_score,
    roc_auc_score,
)

from bigft.tasks.scores import ranking
from bigft.tasks.scores.confusion import matthews_correlation
from bigft.tasks.scores.ranking import (
    Ranked,
    Scores,
    average_precision,
    average_precision_error,
    best_threshold,
    grouped,
    pearson,
    roc_auc,
    spearman,
)


def drawn(seed: int, size: int = 300, ties: bool = True) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    positive = random.random(size) < 0.3
    scores = np.clip(random.normal(0.4 + 0.2 * positive, 0.2), 0, 1)
    return (scores.round(1) if ties else scores), positive


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("seed", range(5))
def test_areas_and_precisions_are_those_of_scikit_learn(seed: int, ties: bool) -> None:
    scores, positive = drawn(seed, ties=ties)
    groups = grouped(scores, positive)
    assert roc_auc(groups) == pytest.approx(roc_auc_score(positive, scores), abs=1e-12)
    expected = average_precision_score(positive, scores)
    assert average_precision(groups) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_no_threshold_has_a_higher_f1(seed: int) -> None:
    scores, positive = drawn(seed)
    threshold, f1 = best_threshold(grouped(scores, positive))
    assert f1 == pytest.approx(f1_score(positive, scores >= threshold), abs=1e-12)
    others = [f1_score(positive, scores >= other) for other in np.linspace(0, 1, 101)]
    assert f1 >= max(others) - 1e-12
    assert not (scores == threshold).any()  # halfway between two scores


def test_many_scores_become_counts_within_the_stated_error(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, positive = drawn(0, size=2000, ties=False)
    monkeypatch.setattr(ranking, "RECORDS", 100)
    monkeypatch.setattr(ranking, "BINS", 64)
    counted = Scores()
    for score, one in zip(scores.tolist(), positive.tolist(), strict=True):
        counted.add(score, one)
    groups = counted.groups()
    assert groups.are_bins
    error = average_precision_error(groups)
    assert 0 < error < 0.05
    exact = average_precision_score(positive, scores)
    assert abs(average_precision(groups) - exact) <= error
    pairs = (groups.positives_K * groups.negatives_K).sum() / (positive.sum() * (~positive).sum())
    assert abs(roc_auc(groups) - roc_auc_score(positive, scores)) <= pairs / 2
    assert average_precision_error(grouped(scores, positive)) == 0


@pytest.mark.parametrize("records", [7, 10_000])
def test_shards_of_scores_add_up(records: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ranking, "RECORDS", records)
    scores, positive = drawn(1, size=60)
    whole, parts = Scores(), [Scores() for _ in range(3)]
    for at, (score, one) in enumerate(zip(scores.tolist(), positive.tolist(), strict=True)):
        whole.add(score, one)
        parts[0 if at < 5 else 1 + at % 2].add(score, one)
    merged = Scores()
    for part in parts:
        merged.merge(json.loads(json.dumps(part.state())))
    for ours, theirs in zip(merged.groups(), whole.groups(), strict=True):
        assert np.array_equal(ours, theirs)


def test_what_is_undefined_is_nan() -> None:
    for positive in ([], [False, False], [True, True]):
        assert math.isnan(roc_auc(grouped([0.5] * len(positive), positive)))
    assert math.isnan(average_precision(grouped([0.5], [False])))
    assert math.isnan(best_threshold(grouped([0.5], [False]))[0])
    assert math.isnan(pearson([1.0, 1.0], [1.0, 2.0]))
    assert math.isnan(spearman([1.0], [1.0]))
    assert math.isnan(matthews_correlation(np.array([[3, 0], [0, 0]])))


def test_correlations_are_those_of_scipy() -> None:
    random = np.random.default_rng(3)
    one, other = random.normal(size=50).round(1), random.normal(size=50).round(1)
    assert pearson(one, other) == pytest.approx(pearsonr(one, other)[0], abs=1e-12)
    assert spearman(one, other) == pytest.approx(spearmanr(one, other)[0], abs=1e-12)


def test_matthews_correlation_is_that_of_scikit_learn() -> None:
    random = np.random.default_rng(4)
    gold, said = random.integers(0, 4, 100), random.integers(0, 4, 100)
    confusion = np.zeros((4, 4), np.int64)
    np.add.at(confusion, (gold, said), 1)
    expected = matthews_corrcoef(gold, said)
    assert matthews_correlation(confusion) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("k", [1, 3, 10])
@pytest.mark.parametrize("seed", range(4))
def test_ndcg_is_that_of_scikit_learn(seed: int, k: int) -> None:
    random = np.random.default_rng(seed)
    scores, gains = random.normal(size=8).round(0), random.integers(0, 4, 8).astype(float)
    expected = ndcg_score(gains[None], scores[None], k=k)
    assert Ranked(scores, gains).ndcg(k) == pytest.approx(expected, abs=1e-12)


def test_the_first_text_that_is_worth_something_decides_the_reciprocal_rank() -> None:
    gains = np.array([0.0, 0, 2, 1])
    assert Ranked(np.array([4.0, 3, 2, 1]), gains).reciprocal_rank() == pytest.approx(1 / 3)
    assert Ranked(np.array([4.0, 3, 5, 1]), gains).reciprocal_rank() == 1
    assert Ranked(np.array([1.0, 1, 1, 1]), gains).reciprocal_rank() == pytest.approx(1 / 3)
    assert math.isnan(Ranked(np.array([1.0, 2]), np.zeros(2)).reciprocal_rank())
    assert math.isnan(Ranked(np.array([1.0, 2]), np.zeros(2)).ndcg(2))
