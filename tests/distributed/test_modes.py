"""Precision, activation checkpointing, clipping and schedules at every ZeRO stage."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed.ranks import run_ranks
from distributed.scenarios import train
from safetensors.torch import load_file

pytestmark = pytest.mark.distributed

Config = Callable[..., dict[str, Any]]
TARGETS = [3, 11, 1, 7, 2, 19, 5, 1, 8, 4, 13, 2, 6, 1, 9]


def column(answer: Any, name: str) -> list[float]:
    return [event[name] for event in answer[0] if event["event"] == "log"]


def run(
    config_for: Config, data: Path, cases: dict[str, dict[str, Any]], ranks: int
) -> dict[str, Any]:
    configs = [
        config_for(
            name,
            data,
            **{"train__global_batch_size": 4, "train__per_device_train_batch_size": 1, **keys},
        )
        for name, keys in cases.items()
    ]
    return dict(zip(cases, run_ranks(train, ranks, configs)[0], strict=True))


def test_bf16_follows_fp32_at_every_stage(
    config_for: Config, write_data: Callable[..., Path]
) -> None:
    cases: dict[str, dict[str, Any]] = {"fp32": {"parallel__zero_stage": 1}}
    cases |= {
        f"bf16-{stage}": {"parallel__zero_stage": stage, "train__bf16": True}
        for stage in (0, 1, 2, 3)
    }
    answers = run(config_for, write_data(TARGETS), cases, ranks=2)
    exact = column(answers["fp32"], "loss")
    for stage in (0, 1, 2, 3):
        losses = column(answers[f"bf16-{stage}"], "loss")
        assert losses != exact  # it did compute in bf16
        assert losses == pytest.approx(exact, rel=0.02)
    # Stage 0 cannot hold fp32 master weights: it runs as stage 1.
    assert column(answers["bf16-0"], "loss") == column(answers["bf16-1"], "loss")
    starts = {name: answer[0][0] for name, answer in answers.items()}
    assert starts["bf16-0"]["zero_stage"] == 1


def test_activation_checkpointing_changes_no_loss(
    config_for: Config, write_data: Callable[..., Path]
) -> None:
    cases = {
        f"{stage}-{on}": {
            "parallel__zero_stage": stage,
            "train__gradient_checkpointing": on,
            "model__dropout": 0.1,  # recomputed with the masks of the first time
        }
        for stage in (0, 3)
        for on in (False, True)
    }
    answers = run(config_for, write_data(TARGETS), cases, ranks=1)
    for stage in (0, 3):
        plain, recomputed = (column(answers[f"{stage}-{on}"], "loss") for on in (False, True))
        assert recomputed == pytest.approx(plain, rel=1e-6)


def test_clipping_bounds_the_step_alike_at_every_stage(
    config_for: Config, write_data: Callable[..., Path]
) -> None:
    rate = 0.1
    cases = {
        f"{stage}-{norm}": {
            "parallel__zero_stage": stage,
            "optim__max_grad_norm": norm,
            "optim__optim": "sgd",  # its step is as long as the gradient that it is given
            "optim__learning_rate": rate,
            "train__max_steps": 1,
        }
        for stage in (0, 1, 2, 3)
        for norm in (0.05, 0.2, 0.0)
    }
    answers = run(config_for, write_data(TARGETS), cases, ranks=2)
    unclipped = column(answers["0-0.0"], "grad_norm")
    assert unclipped[0] > 0.2  # what is logged is the norm before clipping
    for name, answer in answers.items():
        assert column(answer, "grad_norm") == pytest.approx(unclipped, rel=1e-5), name
    for stage in (0, 1, 2, 3):
        short, long, free = (
            load_file(Path(tmp_of(config_for, f"{stage}-{norm}"), "model", "model.safetensors"))
            for norm in (0.05, 0.2, 0.0)
        )
        assert distance(short, long) == pytest.approx(rate * (0.2 - 0.05), rel=1e-3)
        assert distance(long, free) == pytest.approx(rate * (unclipped[0] - 0.2), rel=1e-3)


def tmp_of(config_for: Config, name: str) -> str:
    return str(config_for(name, Path("unused"))["train"]["output_dir"])


def distance(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> float:
    return sum(float((ours[name] - theirs[name]).double().square().sum()) for name in ours) ** 0.5
