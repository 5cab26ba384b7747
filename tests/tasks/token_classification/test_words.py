"""TokenMetric's numbers are scikit-learn's classification_report over the words."""

from __future__ import annotations

import random
from itertools import chain

import pytest
from sklearn.metrics import classification_report

from bigft.data.records import Record
from bigft.tasks.token_classification.words import TokenMetric

LABELS = ["NOUN", "VERB", "ADJ", "PROPN", "X", "PUNCT"]


def scored(gold, predicted, labels=LABELS):
    metric = TokenMetric(labels)
    records = [Record(i, {"tags": tags}, "test.conllu", i) for i, tags in enumerate(gold)]
    metric.update([{"tags": tags} for tags in predicted], records)
    return metric


def sklearn_report(gold, predicted, **options):
    return classification_report([*chain(*gold)], [*chain(*predicted)], zero_division=0, **options)


def random_tagging(seed):
    rng = random.Random(seed)
    labels = rng.sample(LABELS, k=rng.randint(1, len(LABELS)))
    gold = [rng.choices(labels, k=rng.randint(1, 10)) for _ in range(rng.randint(1, 5))]
    return gold, [[rng.choice([tag, rng.choice(labels)]) for tag in tags] for tags in gold]


def test_random_taggings_score_as_with_scikit_learn_over_the_words():
    for seed in range(100):
        gold, predicted = random_tagging(seed)
        rows = scored(gold, predicted).rows()
        expected = sklearn_report(gold, predicted, output_dict=True)
        accuracy = expected.pop("accuracy")
        assert rows.pop("accuracy").f1 == pytest.approx(accuracy, abs=1e-12)
        assert set(rows) == set(expected)
        for name, row in rows.items():
            assert row == pytest.approx(tuple(expected[name].values()), abs=1e-12), f"seed {seed}"


def test_compute_names_its_scores():
    scores = scored([["b", "b", "a", "b"]], [["b", "a", "a", "b"]], ["a", "b", "c"]).compute()
    f1_a, f1_b = 2 / 3, 0.8
    assert scores == pytest.approx({
        "a_precision": 0.5, "a_recall": 1.0, "a_f1": f1_a, "a_support": 1,
        "b_precision": 1.0, "b_recall": 2 / 3, "b_f1": f1_b, "b_support": 3,
        "c_precision": 0.0, "c_recall": 0.0, "c_f1": 0.0, "c_support": 0,
        "macro_precision": 0.75, "macro_recall": 5 / 6, "macro_f1": (f1_a + f1_b) / 2,
        "weighted_precision": 0.875, "weighted_recall": 0.75,
        "weighted_f1": (f1_a + 3 * f1_b) / 4,
        "accuracy": 0.75, "f1": 0.75,
    })  # fmt: skip


def test_the_report_prints_scikit_learns_numbers():
    gold, predicted = random_tagging(0)
    theirs = sklearn_report(gold, predicted, digits=4)
    ours = {tuple(line.split()) for line in scored(gold, predicted).report().splitlines()}
    rows = [tuple(line.split()) for line in theirs.splitlines() if "accuracy" not in line]
    assert ours.issuperset(row for row in rows if row)
