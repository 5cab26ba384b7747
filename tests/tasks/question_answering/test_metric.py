"""Scores of questions with and without an answer, the best threshold, and any sharding of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tasks.questions import record

from bigft.tasks.question_answering.conventions import convention_of
from bigft.tasks.question_answering.metric import AnswerMetric

CONTEXT = "red green blue"
SQUAD = convention_of([], version_2=True)


def metric(may_be_none: bool = True, threshold: float | None = 0.0) -> AnswerMetric:
    return AnswerMetric(SQUAD, may_be_none, threshold)


def add(into: AnswerMetric, *questions: tuple[float | None, str, str | None]) -> AnswerMetric:
    """questions: (null_score_diff, best span, gold answer or None)."""
    for diff, text, gold in questions:
        spans = [{"text": text}] if text else []
        prediction = {"null_score_diff": diff, "answers": spans}
        answers = [] if gold is None else [gold]
        into.update([prediction], [record("q", CONTEXT, *answers)])
    return into


FIVE = (
    (-3.0, "red", "red"),
    (-1.0, "red green", "green"),
    (0.5, "blue", "blue"),
    (1.0, "red", None),
    (-2.0, "red", None),
)  # fmt: skip


def test_answered_and_unanswered_questions_are_scored_apart() -> None:
    scores = add(metric(), *FIVE).compute()
    two_thirds = 100 * 2 / 3
    assert scores["exact_match"] == pytest.approx(100 * 2 / 5)
    assert scores["f1"] == pytest.approx((100 + two_thirds + 0 + 100 + 0) / 5)
    assert scores["has_answer_exact_match"] == pytest.approx(100 / 3)
    assert scores["has_answer_f1"] == pytest.approx((100 + two_thirds) / 3)
    assert scores["no_answer_f1"] == scores["no_answer_exact_match"] == 50
    assert scores["null_score_diff_threshold"] == 0


def test_the_best_threshold_is_that_of_trying_all() -> None:
    scores = add(metric(), *FIVE).compute()
    tried = {
        at: add(metric(threshold=at), *FIVE).compute()["f1"]
        for at in (-4, -2.5, -1.5, -0.5, 0.75, 2)
    }
    assert scores["best_f1"] == pytest.approx(max(tried.values()))
    assert scores["best_f1_threshold"] == 0.75
    assert scores["best_exact_match"] == 60
    assert scores["best_exact_match_threshold"] == -2.5  # as good as 0.75, and lower
    chosen = add(metric(threshold=None), *FIVE)
    assert chosen.threshold == 0.75
    assert chosen.compute()["f1"] == scores["best_f1"]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([-2.0, -1.0, 0.0, 1.0, None]),
            st.sampled_from(["red", "green blue", ""]),
            st.sampled_from(["red", "green", None]),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_no_threshold_is_better_than_the_best(
    questions: list[tuple[float | None, str, str | None]],
) -> None:
    questions = [(diff if text else None, text, gold) for diff, text, gold in questions]
    best = add(metric(), *questions).compute()
    chosen = add(metric(threshold=None), *questions)
    assert chosen.compute()["f1"] == pytest.approx(best["best_f1"])
    for threshold in (-2.5, -1.5, -0.5, 0.5, 1.5):
        scores = add(metric(threshold=threshold), *questions).compute()
        assert scores["f1"] <= best["best_f1"] + 1e-9
        assert scores["exact_match"] <= best["best_exact_match"] + 1e-9


def test_a_threshold_lies_between_two_questions_and_never_between_equal_ones() -> None:
    tied = [(0.25, "red", "red")] * 2 + [(0.25, "red", None), (2.0, "red", None)]
    assert add(metric(), *tied).compute()["best_f1_threshold"] == (0.25 + 2.0) / 2
    assert add(metric(), (0.25, "red", None)).compute()["best_f1_threshold"] == -0.25
    assert add(metric(), (0.25, "red", "red")).compute()["best_f1_threshold"] == 0.75


def test_where_every_question_is_answered_nothing_else_is_reported() -> None:
    found = add(metric(may_be_none=False), (9.0, "red", "red"), (-9.0, "red", "blue"))
    assert found.compute() == {"exact_match": 50, "f1": 50}
    assert "without" not in found.report()
    assert add(metric(may_be_none=False), (None, "", "red")).compute()["f1"] == 0


def test_scores_of_questions_that_are_not_there_are_left_out() -> None:
    scores = add(metric(), *FIVE[:2]).compute()
    assert "has_answer_f1" in scores
    assert not any(name.startswith("no_answer") for name in scores)
    line = next(
        line for line in add(metric(), *FIVE[:2]).report().splitlines() if "without" in line
    )
    assert line.split() == ["without", "-", "-", "0"]


def test_every_name_is_known_before_anything_is_measured() -> None:
    assert {*metric().compute()} == {*add(metric(), *FIVE).compute()}
    assert {*metric(may_be_none=False).compute()} == {"exact_match", "f1"}


QUESTION = st.tuples(
    st.floats(-5, 5), st.sampled_from(["red", "green blue"]), st.sampled_from(["red", "blue", None])
)


@settings(max_examples=40, deadline=None)
@given(shards=st.lists(st.lists(QUESTION, max_size=6), min_size=1, max_size=4))
def test_any_sharding_gives_the_same_scores(shards: list[list[Any]]) -> None:
    whole = add(metric(threshold=None), *[each for shard in shards for each in shard])
    ranks = [add(metric(threshold=None), *shard) for shard in shards]
    merged = metric(threshold=None)
    for rank in reversed(ranks):
        merged.merge(json.loads(json.dumps(rank.state())))
    assert merged.compute() == whole.compute()
    assert merged.report() == whole.report()


def test_the_report_says_how_answers_are_scored() -> None:
    text = add(metric(), *FIVE).report()
    assert text.startswith("Answers, as SQuAD's script scores them\n")
    assert text.endswith("by more than 0; best f1 73.33 with 0.75")
