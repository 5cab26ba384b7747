"""The sums between two log lines: what they say, and that a stop changes none of it."""

from __future__ import annotations

import math
import time

import pytest
import torch

from bigft.runtime.proc import CpuTime
from bigft.runtime.process_group import World
from bigft.training.checkpoint import TrainerState
from bigft.training.log_interval import LogInterval

ALONE = World(0, 0, 1, torch.device("cpu"), None)


def learn(interval: LogInterval, loss_sum: float, targets: int, tokens: int) -> None:
    interval.loss_sum += loss_sum
    interval.targets += targets
    interval.tokens += tokens


def test_the_loss_is_per_target() -> None:
    state = TrainerState()
    interval = LogInterval.begun(state, ALONE)
    learn(interval, 6.0, 3, 10)
    learn(interval, 1.0, 1, 4)
    means = interval.close(state, ALONE)
    assert (means["loss"], means["num_targets"], means["num_tokens"]) == (7.0 / 4, 4, 14)
    assert (state.total_loss, state.total_targets, state.total_tokens) == (7.0, 4, 14)


def test_the_share_of_time_without_a_core_is_that_of_the_interval() -> None:
    now = CpuTime.now()
    interval = LogInterval.begun(TrainerState(), ALONE)
    interval.cpu = CpuTime(now.ran - 30.0, now.waited - 10.0)
    assert interval.close(TrainerState(), ALONE)["cpu_wait"] == pytest.approx(0.25, abs=0.02)


def test_where_nothing_was_learnt_there_is_no_loss() -> None:
    assert math.isnan(LogInterval.begun(TrainerState(), ALONE).close(TrainerState(), ALONE)["loss"])


def test_a_stop_in_between_changes_no_bit() -> None:
    numbers = [(0.1, 3, 7), (1e-9, 2, 5), (1 / 3, 4, 9)]
    whole, other = LogInterval.begun(TrainerState(), ALONE), TrainerState()
    for each in numbers:
        learn(whole, *each)
        interval = LogInterval.begun(other, ALONE)
        learn(interval, *each)
        interval.keep(other, ALONE, time.monotonic())
    ends = TrainerState(), TrainerState()
    resumed = LogInterval.begun(other, ALONE).close(ends[0], ALONE)
    straight = whole.close(ends[1], ALONE)
    names = ("loss", "num_targets", "num_tokens")
    assert [resumed[name] for name in names] == [straight[name] for name in names]
    assert ends[0].total_loss == ends[1].total_loss


def test_pauses_are_no_training() -> None:
    """And the seconds before a stop count."""
    state = TrainerState(window_seconds=100.0, window_tokens=0, loss_sums=[0.0])
    interval = LogInterval.begun(state, ALONE)
    interval.tokens, interval.paused = 600, 40.0
    assert interval.close(state, ALONE)["tokens_per_second"] == pytest.approx(10.0, rel=0.1)
    assert state.training_seconds == pytest.approx(60.0, rel=0.1)
