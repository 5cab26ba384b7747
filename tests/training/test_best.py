"""Which evaluation is the best and when training stops early, by numbers alone."""

from __future__ import annotations

import math

import pytest

from bigft.config.sections import TrainConfig
from bigft.training.best import Judge
from bigft.training.checkpoint import TrainerState


@pytest.mark.parametrize(
    ("options", "metric", "greater"),
    [
        ({}, "loss", False),
        ({"metric_for_best_model": "f1"}, "f1", True),
        ({"metric_for_best_model": "eval_f1"}, "f1", True),
        ({"metric_for_best_model": "eval_loss"}, "loss", False),
        ({"metric_for_best_model": "perplexity"}, "perplexity", False),
        ({"metric_for_best_model": "calibration_error"}, "calibration_error", False),
        ({"metric_for_best_model": "eval_mae"}, "mae", False),
        ({"metric_for_best_model": "perplexity", "greater_is_better": True}, "perplexity", True),
        ({"metric_for_best_model": "loss", "greater_is_better": True}, "loss", True),
    ],
)
def test_what_judges(options: dict[str, object], metric: str, greater: bool) -> None:
    train = TrainConfig.model_validate({"output_dir": "run", **options})
    assert Judge.of(train) == Judge(metric, greater)


@pytest.mark.parametrize(
    ("greater", "scores", "best"),
    [
        (True, [0.2, 0.5, 0.4, 0.6], [True, True, False, True]),
        (False, [0.2, 0.5, 0.1], [True, False, True]),
        (True, [0.5, 0.5], [True, False]),  # the first of equal ones stays
        (True, [math.nan, 0.1, math.nan, 0.2], [False, True, False, True]),
        (False, [math.inf, 1.0], [True, True]),
    ],
)
def test_the_best_so_far(greater: bool, scores: list[float], best: list[bool]) -> None:
    state, judge = TrainerState(), Judge("score", greater)
    for step, (score, is_best) in enumerate(zip(scores, best, strict=True), start=1):
        state.step = step
        assert judge.judge({"other": 7.0, "score": score}, state) is is_best
        assert (state.best_step == step) is is_best
        if is_best:
            assert state.best_metric == score


def test_evaluations_without_a_gain_are_counted_in_a_row() -> None:
    state, judge = TrainerState(), Judge("score", True, patience=2)
    seen = []
    for score in (0.5, 0.4, 0.6, 0.6, math.nan):
        judge.judge({"score": score}, state)
        seen.append((state.evaluations_without_gain, judge.gives_up(state)))
    assert seen == [(0, False), (1, False), (0, False), (1, False), (2, True)]


def test_without_patience_training_never_stops_early() -> None:
    assert not Judge("score", True).gives_up(TrainerState(evaluations_without_gain=99))
