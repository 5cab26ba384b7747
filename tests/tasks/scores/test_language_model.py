"""Perplexity, accuracy and exact match are counts that add up."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import pytest

from bigft.data.records import Record
from bigft.tasks.scores.language_model import LanguageModelMetric, final_answer

GSM8K = re.compile(r"####\s*(\S+)")


def updated(rows: list[dict[str, Any]], generates: bool = True) -> LanguageModelMetric:
    metric = LanguageModelMetric(generates, GSM8K)
    metric.update(rows, [Record(0, {}, "d", 1)] * len(rows))
    return metric


def row(loss: float, targets: int, correct: int, given: str = "", wanted: str = "#### 5") -> Any:
    return {
        "loss": loss,
        "targets": targets,
        "correct": correct,
        "generated": given,
        "reference": wanted,
    }


def test_every_target_weighs_the_same() -> None:
    scores = updated([row(6.0, 2, 1), row(1.0, 8, 8)]).compute()
    assert scores["perplexity"] == pytest.approx(math.exp(0.7))
    assert scores["token_accuracy"] == 0.9


def test_shards_add_up_to_the_whole() -> None:
    rows = [row(0.5 * n, n, n // 2, f"#### {n}") for n in range(1, 9)]
    whole, merged = updated(rows), updated([])
    for shard in (rows[:3], rows[3:4], rows[4:]):
        merged.merge(json.loads(json.dumps(updated(shard).state())))
    assert merged.compute() == whole.compute()
    assert merged.report() == whole.report()
    assert whole.compute()["exact_match"] == 1 / 8


def test_nothing_measured_is_zero_and_names_every_score() -> None:
    assert updated([]).compute() == {"perplexity": 1.0, "token_accuracy": 0.0, "exact_match": 0.0}
    assert "exact_match" not in updated([], generates=False).compute()


def test_a_loss_beyond_what_a_float_holds() -> None:
    assert updated([row(5000.0, 1, 0)]).compute()["perplexity"] == math.inf


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("#### 5", "5"),
        ("#### 1 then #### 72.", "72"),
        ("####1,234,567", "1234567"),
        ("#### 1,23", "1,23"),
        ("it is 5", None),
    ],
)
def test_the_last_match_is_the_answer(text: str, answer: str | None) -> None:
    assert final_answer(text, GSM8K) == answer


def test_a_pattern_without_a_group_and_none() -> None:
    assert final_answer("a 5 b 6", re.compile(r"\d")) == "6"
    assert final_answer(" Yes. ", None) == "Yes"


def test_a_reference_without_an_answer_is_never_met() -> None:
    metric = updated([row(1.0, 1, 1, given="none", wanted="none")])
    assert metric.compute()["exact_match"] == 0
