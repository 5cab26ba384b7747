"""Answers are those of the mean of a text's windows; thresholds decide, given or tuned."""

from __future__ import annotations

import math

import pytest
import torch
from tasks.labelled import LABELS, MULTI, REGRESSION, SINGLE, prompt, record, task

from bigft.config.errors import BadInput
from bigft.tasks.text_classification.decisions import Decisions

# -- answers ------------------------------------------------------------------------------------


def test_an_answer_is_made_of_the_mean_of_the_windows_logits() -> None:
    one = task()
    parts = [{"logits": [0.0, 4.0, 1.0], "target": []}, {"logits": [2.0, 0.0, 1.0], "target": []}]
    found = one.stitch(parts, prompt(one))
    probabilities = torch.tensor([1.0, 2.0, 1.0]).double().softmax(0).tolist()
    assert found["text"] == "bob"
    assert found["label"] == "good"
    assert found["score"] == pytest.approx(probabilities[1])
    assert [each["label"] for each in found["top"]] == ["good", "none", "bad"]
    in_evaluation = one.stitch(parts, record())
    assert in_evaluation == {"probabilities": pytest.approx(probabilities), "target": []}


def test_answers_of_several_labels_and_of_numbers() -> None:
    several = task(MULTI)
    found = several.stitch([{"logits": [3.0, -1.0, 0.0], "target": []}], prompt(several))
    assert found["labels"] == ["bad", "none"]
    assert found["top"][0]["score"] == pytest.approx(1 / (1 + math.exp(-3)))
    number = task(REGRESSION)
    assert number.stitch([{"logits": [2.5], "target": []}], prompt(number))["stars"] == 2.5


def test_below_the_threshold_a_text_is_out_of_scope() -> None:
    decisions = Decisions(SINGLE, LABELS, outside=2, threshold=0.5)
    assert decisions.one([0.3, 0.6, 0.1]) == 1
    assert decisions.one([0.3, 0.45, 0.25]) == 2
    assert decisions.one([0.55, 0.0, 0.45]) == 0
    without = Decisions(SINGLE, LABELS, outside=2)
    assert without.one([0.3, 0.3, 0.4]) == 2


def test_what_is_tuned_is_gone_by() -> None:
    options = {"out_of_scope_label": "none", "decision_threshold": "tune"}
    files = {"train_file": "a", "validation_file": "b"}
    one = task(task=options, data=files)
    metric = one.metric()
    rows = [
        ([0.9, 0.05, 0.05], 0),
        ([0.2, 0.7, 0.1], 1),
        ([0.4, 0.3, 0.3], 2),
        ([0.45, 0.5, 0.05], 2),
    ]
    predictions = [{"probabilities": p, "target": [gold]} for p, gold in rows]
    metric.update(predictions, [record()] * 4)
    values = one.tuned(metric)
    assert values == {"decision_threshold": pytest.approx(0.6)}  # halfway between 0.5 and 0.7
    one.use_tuned(values)
    again = one.metric()
    again.update(predictions, [record()] * 4)
    assert metric.compute()["accuracy"] == 0.5
    assert again.compute()["accuracy"] == 1
    assert again.compute()["out_of_scope_f1"] == 1
    fixed = task(task=options | {"decision_threshold": 0.5})
    assert fixed.tuned(metric) == {}


def test_thresholds_of_several_labels_are_tuned_one_by_one() -> None:
    one = task(MULTI, task={"decision_threshold": "tune"}, data={"validation_file": "b"})
    metric = one.metric()
    rows = [
        ([0.2, 0.9, 0.1], [1, 0, 0]),
        ([0.1, 0.95, 0.2], [0, 1, 0]),
        ([0.3, 0.8, 0.4], [1, 0, 0]),
    ]
    predictions = [{"probabilities": p, "target": gold} for p, gold in rows]
    metric.update(predictions, [record()] * 3)
    assert one.tuned(metric)["decision_threshold"] == pytest.approx([0.15, 0.925, 0.5])


# -- prompts ------------------------------------------------------------------------------------


def test_prompts_are_texts_pairs_and_the_columns_of_the_data() -> None:
    one = task()
    assert prompt(one, {"text": "a"}).fields == {"text": "a"}
    assert prompt(one, {"premise": "a", "hypothesis": "b"}).fields == {"text": "a", "pair": "b"}
    assert prompt(one, {"text": ["a", "b"]}).fields == {"text": "a", "pair": "b"}
    named = task(data={"text_column_name": "said"})
    assert prompt(named, {"said": "a"}).fields == {"text": "a"}
    assert prompt(named, "a").fields == {"text": "a"}
    pairs = task(data={"text_column_name": ["one", "two"]})
    assert prompt(pairs, {"one": "a", "two": "b"}).fields == {"text": "a", "pair": "b"}
    with pytest.raises(BadInput, match="stdin:1: no field one; there are text"):
        prompt(pairs, "a")
