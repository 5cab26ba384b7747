"""Every target weighs the same: the layout of ranks and micro-batches does not change a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed.ranks import run_ranks
from distributed.scenarios import train, train_averaging_per_micro_batch
from safetensors.torch import load_file

pytestmark = pytest.mark.distributed

# (ranks, samples of a micro-batch): each makes steps of 8 samples.
LAYOUTS = {"1x8": (1, 8), "1x2x4": (1, 2), "2x2x2": (2, 2), "4x2": (4, 2)}
STAGES = (0, 1, 2, 3)
# From 1 to 40 targets a sentence, 27 sentences: no multiple of the batch.
TARGETS = [1, 40, 2, 1, 30, 3, 1, 1, 17, 2, 5, 1, 38, 1, 1, 9, 2, 25, 1, 4, 1, 33, 2, 1, 12, 1, 6]

Config = Callable[..., dict[str, Any]]


def configs_of(layout: str, config_for: Config, data: Path, **keys: Any) -> list[dict[str, Any]]:
    return [
        config_for(
            f"{layout}-zero{stage}",
            data,
            parallel__zero_stage=stage,
            train__global_batch_size=8,
            train__per_device_train_batch_size=LAYOUTS[layout][1],
            **keys,
        )
        for stage in STAGES
    ]


def losses(events: list[dict[str, Any]]) -> list[float]:
    return [event["loss"] for event in events if event["event"] == "log"]


def relative(ours: list[float], theirs: list[float]) -> float:
    pairs = zip(ours, theirs, strict=True)
    return max(abs(mine - other) / abs(other) for mine, other in pairs)


def weights(config: dict[str, Any]) -> dict[str, torch.Tensor]:
    return load_file(Path(config["train"]["output_dir"], "model", "model.safetensors"))


@pytest.mark.parametrize("optim", ["adamw_torch", "sgd"])
def test_every_layout_and_stage_trains_the_same(
    optim: str, config_for: Config, write_data: Callable[..., Path]
) -> None:
    data = write_data(TARGETS, [5])
    reference: list[float] | None = None
    for layout, (ranks, _) in LAYOUTS.items():
        configs = configs_of(layout, config_for, data, optim__optim=optim)
        answers = run_ranks(train, ranks, configs)[0]
        for config, (events, _) in zip(configs, answers, strict=True):
            seen = losses(events)
            if reference is None:
                reference, expected = seen, weights(config)
                assert len(set(seen)) == len(seen) == 8
            assert relative(seen, reference) <= 1e-5, config["train"]["output_dir"]
            for name, tensor in weights(config).items():
                error = (tensor - expected[name]).abs()
                if optim == "sgd":
                    assert error.max() <= 1e-5, name
                elif not name.endswith("key.bias"):  # its true gradient is zero: Adam sees noise
                    assert error.norm() / expected[name].norm() <= 1e-5, name


def test_a_mean_per_micro_batch_would_be_noticed(
    config_for: Config, write_data: Callable[..., Path]
) -> None:
    data = write_data(TARGETS)
    seen = []
    for layout in ("1x8", "1x2x4"):
        config = configs_of(layout, config_for, data)[0]
        ((events, _),) = run_ranks(train_averaging_per_micro_batch, 1, [config])[0]
        seen.append(losses(events))
    assert relative(seen[1], seen[0]) > 1e-2
