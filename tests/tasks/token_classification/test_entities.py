"""EntityMetric's numbers are seqeval's, under both conventions."""

from __future__ import annotations

import random

import pytest
from seqeval.metrics import accuracy_score, classification_report
from seqeval.scheme import IOB2

from bigft.data.records import Record
from bigft.tasks.token_classification.entities import EntityMetric

TYPES = ["PER", "LOC", "ORG", "creative-work"]
LABELS = ["O", *(f"{prefix}-{kind}" for kind in TYPES for prefix in "BI")]


def scored(gold, predicted, labels=LABELS):
    metric = EntityMetric(labels)
    records = [Record(i, {"tags": tags}, "test.conll", i) for i, tags in enumerate(gold)]
    metric.update([{"tags": tags} for tags in predicted], records)
    return metric


def seqeval_rows(gold, predicted, **strict):
    report = classification_report(gold, predicted, output_dict=True, zero_division=0, **strict)
    return {name: tuple(row.values()) for name, row in report.items()}


def random_tagging(seed):
    """A small random tagging; the gold one is as malformed as the predicted one.

    The last gold sentence is an entity: seqeval has no report of none.
    """
    rng = random.Random(seed)
    labels = rng.sample(LABELS[1:], k=rng.randint(1, len(LABELS) - 1)) + ["O"] * rng.randint(1, 4)
    gold = [rng.choices(labels, k=rng.randint(1, 12)) for _ in range(rng.randint(1, 8))]
    gold.append(["B-PER"])
    agreement = rng.random()
    predicted = [
        [tag if rng.random() < agreement else rng.choice(labels) for tag in tags] for tags in gold
    ]
    return gold, predicted


def test_1000_random_taggings_score_as_with_seqeval():
    for seed in range(1000):
        gold, predicted = random_tagging(seed)
        metric = scored(gold, predicted)
        for convention, strict in (
            ("conlleval", {}),
            ("strict", {"mode": "strict", "scheme": IOB2}),
        ):
            rows = metric.rows(convention)
            expected = seqeval_rows(gold, predicted, **strict)
            assert set(rows) == set(expected), f"seed {seed}, {convention}"
            for name, row in rows.items():
                assert row == pytest.approx(expected[name], abs=1e-12), f"seed {seed}, {name}"
        assert metric.compute()["accuracy"] == pytest.approx(accuracy_score(gold, predicted))


def test_compute_names_the_scores_of_both_conventions():
    gold = [["B-PER", "I-PER", "O", "B-LOC"], ["B-LOC", "O"]]
    predicted = [["I-PER", "I-PER", "O", "B-LOC"], ["O", "B-PER"]]
    scores = scored(gold, predicted, ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]).compute()
    third = pytest.approx(1 / 3)
    two_thirds = pytest.approx(2 / 3)
    assert scores == {
        "LOC_precision": 1.0, "LOC_recall": 0.5, "LOC_f1": two_thirds, "LOC_support": 2,
        "PER_precision": 0.5, "PER_recall": 1.0, "PER_f1": two_thirds, "PER_support": 1,
        "precision": two_thirds, "recall": two_thirds, "f1": two_thirds,
        "macro_f1": two_thirds, "weighted_f1": two_thirds,
        "strict_precision": 0.5, "strict_recall": third, "strict_f1": pytest.approx(0.4),
        "strict_macro_f1": third, "strict_weighted_f1": pytest.approx(4 / 9),
        "accuracy": pytest.approx(3 / 6),
    }  # fmt: skip


def test_a_type_that_never_occurs_has_scores_but_does_not_lower_the_macro_average():
    scores = scored([["B-PER"]], [["B-PER"]]).compute()
    assert scores["macro_f1"] == 1.0
    assert scores["creative-work_f1"] == 0.0
    assert scores["creative-work_support"] == 0


def test_tags_without_a_type_are_one_unnamed_type():
    metric = scored([["B", "I", "O", "B"]], [["B", "I", "O", "O"]], ["O", "B", "I"])
    assert metric.rows("strict")["_"] == pytest.approx((1.0, 0.5, 2 / 3, 2))


def test_the_report_prints_seqevals_numbers_under_both_conventions():
    gold, predicted = random_tagging(3)
    first, second = scored(gold, predicted).report().split("\n\nEntities as seqeval's strict")
    for text, strict in ((first, {}), (second, {"mode": "strict", "scheme": IOB2})):
        theirs = classification_report(gold, predicted, digits=4, zero_division=0, **strict)
        ours = {tuple(line.split()) for line in text.splitlines()}
        assert ours >= {tuple(line.split()) for line in theirs.splitlines() if line}


def test_labels_without_prefixes_are_refused():
    with pytest.raises(KeyError):
        EntityMetric(["NOUN", "VERB"])
