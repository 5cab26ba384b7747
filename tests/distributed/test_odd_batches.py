"""Batches that fit nowhere: left-over samples, ranks and steps without a target."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from distributed.ranks import run_ranks
from distributed.scenarios import train

pytestmark = pytest.mark.distributed

Config = Callable[..., dict[str, Any]]


def logs(answer: Any) -> list[dict[str, Any]]:
    return [event for event in answer[0] if event["event"] == "log"]


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_every_sample_weighs_once_where_nothing_divides(
    ranks: int, config_for: Config, write_data: Callable[..., Path]
) -> None:
    targets = [3, 11, 1, 7, 2, 19, 5, 1, 8, 4, 13]
    configs = [
        config_for(
            f"odd{stage}",
            write_data(targets),
            parallel__zero_stage=stage,
            train__global_batch_size=4,
            train__per_device_train_batch_size=1,
            train__num_train_epochs=1.0,
        )
        for stage in (0, 3)
    ]
    for answer in run_ranks(train, ranks, configs)[0]:
        assert len(logs(answer)) == 3
        assert sum(event["num_targets"] for event in logs(answer)) == sum(targets)
        assert all(math.isfinite(event["loss"]) for event in logs(answer))


def test_ranks_and_steps_without_a_target_change_nothing(
    config_for: Config, write_data: Callable[..., Path]
) -> None:
    """Two samples with targets, six without, steps of one: six of eight steps are empty; and on
    two ranks one of them never has a sample of its own."""
    data = write_data([6, 9], [4] * 6)
    configs = [
        config_for(
            f"blank{stage}",
            data,
            parallel__zero_stage=stage,
            train__global_batch_size=1,
            train__per_device_train_batch_size=1,
            train__num_train_epochs=1.0,
        )
        for stage in (0, 2, 3)
    ]
    alone = run_ranks(train, 1, configs)[0]
    for ours, theirs in zip(run_ranks(train, 2, configs)[0], alone, strict=True):
        assert [event["num_targets"] for event in logs(ours)].count(0) == 6
        assert ours[1]["train_skipped_steps"] == 6
        seen = [event["loss"] for event in logs(ours) if event["num_targets"]]
        expected = [event["loss"] for event in logs(theirs) if event["num_targets"]]
        assert len(seen) == 2
        assert seen == pytest.approx(expected, rel=1e-6)
        # The schedule goes on over empty steps.
        rates = [event["learning_rate"] for event in logs(ours)]
        assert rates == sorted(rates, reverse=True)
        assert len(set(rates)) == 8


def test_token_budgets_train_every_sample_once(
    config_for: Config, write_data: Callable[..., Path]
) -> None:
    targets = [3, 11, 1, 7, 2, 19, 5, 1, 8, 4, 13]
    config = config_for(
        "tokens",
        write_data(targets),
        train__global_batch_tokens=60,
        train__per_device_train_batch_tokens=30,
        train__num_train_epochs=1.0,
    )
    (answer,) = run_ranks(train, 2, [config])[0]
    assert sum(event["num_targets"] for event in logs(answer)) == sum(targets)
