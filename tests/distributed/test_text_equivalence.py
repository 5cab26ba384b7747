"""Text classification: ranks, micro-batches and ZeRO stages do not change a run, of any labels."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed.ranks import run_ranks
from distributed.scenarios import train
from distributed.texts import KINDS, losses, text_config, write_texts
from safetensors.torch import load_file

from bigft.config.sections import RunConfig
from bigft.training.inputs import prepare

pytestmark = pytest.mark.distributed

LAYOUTS = {"1x8": (1, 8), "1x2x4": (1, 2), "2x2x2": (2, 2), "4x2": (4, 2)}
Config = Callable[..., dict[str, Any]]


def configs_of(layout: str, config_for: Config, files: dict[str, Path]) -> list[dict[str, Any]]:
    """Windows, whose targets are fractions, at every stage; the other kinds at the outer ones."""
    cells = [(kind, stage) for kind in KINDS for stage in range(4)]
    return [
        text_config(
            config_for,
            f"{layout}-{kind}-zero{stage}",
            kind,
            files,
            parallel__zero_stage=stage,
            optim__optim="sgd",
            train__global_batch_size=8,
            train__per_device_train_batch_size=LAYOUTS[layout][1],
            train__num_train_epochs=1.0,
        )
        for kind, stage in cells
        if kind == "windows" or stage in (0, 3)
    ]


def test_every_layout_and_stage_trains_the_same(config_for: Config, tmp_path: Path) -> None:
    files = write_texts(tmp_path)
    reference: dict[str, tuple[list[float], dict[str, torch.Tensor]]] = {}
    for layout, (ranks, _) in LAYOUTS.items():
        configs = configs_of(layout, config_for, files)
        answers = run_ranks(train, ranks, configs)[0]
        for config, (events, _) in zip(configs, answers, strict=True):
            kind = Path(config["data"]["train_file"][0]).stem
            output = Path(config["train"]["output_dir"])
            seen, weights = losses(events), load_file(output / "model" / "model.safetensors")
            expected, expected_weights = reference.setdefault(kind, (seen, weights))
            assert len(set(seen)) == len(seen) >= 4
            for ours, theirs in zip(seen, expected, strict=True):
                assert abs(ours - theirs) <= 1e-5 * abs(theirs), output
            for name, tensor in weights.items():
                assert (tensor - expected_weights[name]).abs().max() <= 1e-5, (output, name)


def test_the_log_counts_fractions_of_texts(config_for: Config, tmp_path: Path) -> None:
    files = write_texts(tmp_path)
    config = text_config(
        config_for, "fractions", "windows", files, train__global_batch_size=5,
        train__num_train_epochs=1.0,
    )  # fmt: skip
    ((events, results),) = run_ranks(train, 1, [config])[0]
    counts = [event["num_targets"] for event in events if event["event"] == "log"]
    assert any(count != int(count) for count in counts)
    assert sum(counts) == pytest.approx(27)
    windows = prepare(RunConfig.model_validate(config)).splits["train"]
    assert results["train_samples"] == len(windows) > 27


def test_a_run_that_is_stopped_and_continued_has_the_same_bits(
    config_for: Config, tmp_path: Path
) -> None:
    files = write_texts(tmp_path)

    def configs(name: str, **keys: Any) -> list[dict[str, Any]]:
        return [
            text_config(
                config_for,
                f"{name}-{kind}",
                kind,
                files,
                model__dropout=0.1,
                parallel__zero_stage=stage,
                train__global_batch_size=4,
                train__per_device_train_batch_size=1,
                train__logging_steps=3,
                train__max_steps=8,
                **keys,
            )
            for kind, stage in zip(KINDS, (2, 3, 0), strict=True)
        ]

    whole = run_ranks(train, 2, configs("whole"))[0]
    run_ranks(train, 2, configs("cut"), 3)
    rest = run_ranks(train, 2, configs("cut", train__resume_from_checkpoint=True))[0]
    for kind, (events, results), (_, expected) in zip(KINDS, rest, whole, strict=True):
        assert results["train_loss"] == expected["train_loss"], kind
        assert losses(events)
        ours, theirs = (
            load_file(tmp_path / f"{name}-{kind}" / "model" / "model.safetensors")
            for name in ("cut", "whole")
        )
        for name, tensor in theirs.items():
            assert torch.equal(ours[name], tensor), (kind, name)
