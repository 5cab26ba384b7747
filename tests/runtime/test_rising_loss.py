"""A loss that ends far above its beginning, or above that of guessing, is told; noise is not."""

from __future__ import annotations

import random
from typing import Any

import pytest

from bigft.runtime.events import Event
from bigft.runtime.rising_loss import rising_loss


def log(step: int, loss: float | None, num_targets: int = 10) -> Event:
    return {"event": "log", "step": step, "loss": loss, "num_targets": num_targets}


def told(*losses: float | None, guessing: float | None = None) -> str:
    start: dict[str, Any] = {"event": "start"}
    if guessing is not None:
        start["uniform_loss"] = guessing
    return rising_loss([start, *(log(step, loss) for step, loss in enumerate(losses))])


@pytest.mark.parametrize(
    "losses", [(2.1, 7273.0), (0.3, 0.5, 0.9), (2.0, 1.9, 2.5, 3.0, 3.1, 3.3, 3.8, 4.1)]
)
def test_a_loss_that_rises_is_told(losses: tuple[float, ...]) -> None:
    assert told(*losses).startswith("the loss rose from ")


def test_the_numbers_are_told() -> None:
    expected = "the loss rose from 2.1 to 7,273: lower optim.learning_rate"
    assert told(2.1, 900.0, 7273.0, guessing=2.2) == expected


def test_a_loss_that_had_jumped_before_the_first_line_is_told() -> None:
    assert told(5000.0, 900.0, 60.0, guessing=2.2) == (
        "the loss ended at 60, above the 2.2 of guessing: train longer, or lower "
        "optim.learning_rate"
    )
    assert told(900.0, guessing=2.2).startswith("the loss ended at 900, above")


@pytest.mark.parametrize("losses", [(), (None,), (2.1,), (2.1, 2.0), (0.01, 0.3), (11.0, 4.0)])
def test_a_loss_that_did_not_rise_far_is_not(losses: tuple[float | None, ...]) -> None:
    assert told(*losses, guessing=10.8) == ""


def test_noise_is_no_rise() -> None:
    source = random.Random(0)
    for _ in range(100):
        losses = [1.5 + source.gauss(0, 0.3) - 0.02 * step for step in range(40)]
        assert told(*losses) == ""


def test_a_step_of_few_targets_weighs_little() -> None:
    logs = [log(step, 1.0) for step in range(7)] + [log(8, 9.0, num_targets=1), log(9, 0.9, 100)]
    assert rising_loss(logs) == ""


def test_lines_without_a_loss_and_of_older_runs_are_passed_over() -> None:
    assert told(None, 2.0, None, 1.5) == ""
    assert rising_loss([{"event": "log", "step": 1, "loss": 9.0}]) == ""
