"""Scores of labels are scikit-learn's; shards add up; what is undefined is named."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    matthews_corrcoef,
    mean_absolute_error,
    mean_squared_error,
    r2_score,
    roc_auc_score,
)

from bigft.config.errors import BadInput
from bigft.data.records import Record
from bigft.tasks.text_classification.decisions import Decisions
from bigft.tasks.text_classification.groups import GroupedMetric
from bigft.tasks.text_classification.metric import (
    MultiLabelMetric,
    RegressionMetric,
    SingleLabelMetric,
)

SINGLE, MULTI = "single_label_classification", "multi_label_classification"
LABELS = ["a", "b", "c", "d"]


def record(group: int = 0) -> Record:
    return Record(0, {"group": str(group)}, "test.csv", 2)


def single(seed: int = 0, size: int = 120, classes: int = 3) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    gold = random.integers(0, classes, size)
    probabilities = random.dirichlet(np.ones(len(LABELS)), size)
    probabilities[np.arange(size), gold] += 0.3
    return probabilities / probabilities.sum(1, keepdims=True), gold


def predictions(probabilities: Any, gold: Any) -> list[dict[str, Any]]:
    pairs = zip(probabilities.tolist(), gold.tolist(), strict=True)
    return [
        {"probabilities": each, "target": one if isinstance(one, list) else [one]}
        for each, one in pairs
    ]


def test_scores_of_single_labels_are_those_of_scikit_learn() -> None:
    probabilities, gold = single()
    metric = SingleLabelMetric(Decisions(SINGLE, LABELS))
    metric.update(predictions(probabilities, gold), [])
    said, scores = probabilities.argmax(1), metric.compute()
    assert scores["accuracy"] == pytest.approx(accuracy_score(gold, said))
    assert scores["macro_f1"] == pytest.approx(f1_score(gold, said, average="macro"))
    assert scores["weighted_f1"] == pytest.approx(f1_score(gold, said, average="weighted"))
    assert scores["matthews_correlation"] == pytest.approx(matthews_corrcoef(gold, said))
    assert "without a text (no recall): d" in metric.report()


def test_the_calibration_error_is_the_mean_gap_of_fifteen_bins() -> None:
    probabilities, gold = single(1)
    metric = SingleLabelMetric(Decisions(SINGLE, LABELS))
    metric.update(predictions(probabilities, gold), [])
    best, right = probabilities.max(1), probabilities.argmax(1) == gold
    places = np.minimum((best * 15).astype(int), 14)
    gaps = [
        abs(right[places == at].mean() - best[places == at].mean()) * (places == at).mean()
        for at in range(15)
        if (places == at).any()
    ]
    assert metric.compute()["calibration_error"] == pytest.approx(sum(gaps))


def test_two_labels_have_an_area() -> None:
    random = np.random.default_rng(2)
    gold, p = random.integers(0, 2, 50), random.random(50)
    metric = SingleLabelMetric(Decisions(SINGLE, ["no", "yes"]))
    metric.update(predictions(np.stack([1 - p, p], 1), gold), [])
    scores = metric.compute()
    assert scores["roc_auc"] == pytest.approx(roc_auc_score(gold, p))
    assert scores["average_precision"] == pytest.approx(average_precision_score(gold, p))


def test_what_is_out_of_scope_has_scores_of_its_own() -> None:
    probabilities, gold = single(3, classes=4)
    metric = SingleLabelMetric(Decisions(SINGLE, LABELS, outside=3, threshold=0.45))
    metric.update(predictions(probabilities, gold), [])
    best = probabilities[:, :3].max(1)
    said = np.where(best >= 0.45, probabilities[:, :3].argmax(1), 3)
    scores = metric.compute()
    assert scores["accuracy"] == pytest.approx((said == gold).mean())
    assert scores["in_scope_accuracy"] == pytest.approx((said == gold)[gold != 3].mean())
    assert scores["out_of_scope_recall"] == pytest.approx((said == 3)[gold == 3].mean())
    assert scores["out_of_scope_f1"] == pytest.approx(f1_score(gold == 3, said == 3))
    expected = roc_auc_score(gold == 3, 1 - best)
    assert scores["out_of_scope_roc_auc"] == pytest.approx(expected)


def test_scores_of_several_labels_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(4)
    gold = (random.random((80, 4)) < [0.5, 0.2, 0.1, 0]).astype(int)
    p = np.clip(random.normal(0.3 + 0.3 * gold, 0.2), 0, 1)
    metric = MultiLabelMetric(Decisions(MULTI, LABELS, threshold=[0.5, 0.4, 0.6, 0.5]))
    metric.update(predictions(p, gold), [])
    said = (p >= [0.5, 0.4, 0.6, 0.5]).astype(int)
    scores, there = metric.compute(), [0, 1, 2]
    assert scores["micro_f1"] == pytest.approx(f1_score(gold, said, average="micro"))
    expected = f1_score(gold[:, there], said[:, there], average="macro")
    assert scores["macro_f1"] == pytest.approx(expected)
    expected = average_precision_score(gold[:, there], p[:, there], average="macro")
    assert scores["average_precision"] == pytest.approx(expected)
    assert scores["subset_accuracy"] == pytest.approx((said == gold).all(1).mean())
    assert "no text has them, and the means are without: d" in metric.report()


def test_a_label_that_is_not_known_of_a_text_counts_on_neither_side() -> None:
    metric = MultiLabelMetric(Decisions(MULTI, ["a", "b"]))
    metric.update([{"probabilities": [0.9, 0.9], "target": [1, -100]}], [])
    assert metric.compute()["micro_f1"] == 1
    assert metric.compute()["subset_accuracy"] == 1


def test_scores_of_numbers_are_those_of_scikit_learn() -> None:
    random = np.random.default_rng(5)
    gold, said = random.normal(size=40), random.normal(size=40)
    metric = RegressionMetric()
    metric.update([{"value": v, "target": [t]} for v, t in zip(said, gold, strict=True)], [])
    scores = metric.compute()
    assert scores["mse"] == pytest.approx(mean_squared_error(gold, said))
    assert scores["mae"] == pytest.approx(mean_absolute_error(gold, said))
    assert scores["r2"] == pytest.approx(r2_score(gold, said))


@pytest.mark.parametrize(
    "metric",
    [
        SingleLabelMetric(Decisions(SINGLE, ["no", "yes"])),
        SingleLabelMetric(Decisions(SINGLE, LABELS, outside=3)),
        MultiLabelMetric(Decisions(MULTI, LABELS)),
        RegressionMetric(),
    ],
    ids=["two", "out of scope", "several", "numbers"],
)
def test_without_texts_every_score_is_there_undefined_and_named(metric: Any) -> None:
    scores = metric.compute()
    undefined = [name for name, value in scores.items() if math.isnan(value)]
    assert "undefined on these texts" in metric.report()
    assert all(name in metric.report() for name in undefined)


def grouped(kind: str) -> GroupedMetric:
    if kind == "numbers":
        return GroupedMetric(RegressionMetric(), Decisions("regression", ["stars"]), 2)
    decisions = Decisions(SINGLE, ["0", "1", "2"])
    return GroupedMetric(SingleLabelMetric(decisions), decisions, 2)


@pytest.mark.parametrize("kind", ["numbers", "labels"])
def test_a_group_is_scored_whole_wherever_its_texts_are(kind: str) -> None:
    random = np.random.default_rng(6)
    texts = []
    for group in random.integers(0, 5, 60).tolist():
        gold = int(random.integers(0, 3))
        found = {"value": float(random.normal()), "target": [gold]}
        if kind == "labels":
            found |= {"probabilities": random.dirichlet([1, 1, 1]).tolist()}
        texts.append((found, record(group)))
    whole, parts = grouped(kind), [grouped(kind) for _ in range(3)]
    for at, (found, one) in enumerate(texts):
        whole.update([found], [one])
        parts[at % 3].update([found], [one])
    merged = grouped(kind)
    for part in parts:
        merged.merge(json.loads(json.dumps(part.state())))
    ours, theirs = merged.compute(), whole.compute()
    assert ours == pytest.approx(theirs)
    assert {"group_auc", "mrr", "ndcg_at_2"} <= {*ours}


def test_groups_without_a_difference_are_left_out_and_counted() -> None:
    metric = grouped("numbers")
    for group, gains in enumerate([[0, 0], [1, 2], [0, 1]]):
        for place, gain in enumerate(gains):
            found = {"value": float(place), "target": [float(gain)]}
            metric.update([found], [record(group)])
    assert metric.compute()["group_auc"] == 1
    assert metric.compute()["mrr"] == 1
    report = metric.report()
    assert "3 groups of 6 texts" in report
    assert "1 have no text that is worth anything: left out of all means" in report
    assert "1 have no text that is worth nothing: left out of group_auc" in report


def test_labels_that_are_worth_nothing_have_no_rank() -> None:
    decisions = Decisions(SINGLE, ["x", "y", "z"])
    with pytest.raises(BadInput, match=r"data\.group_column_name: given, but what are the labels"):
        GroupedMetric(SingleLabelMetric(decisions), decisions, 10)
