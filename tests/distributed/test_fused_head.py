"""A fused head trains what the stock head trains, however weights and samples are sharded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed.ranks import run_ranks
from distributed.scenarios import train, train_language_model
from safetensors.torch import load_file

pytestmark = pytest.mark.distributed

TARGETS = [3, 11, 1, 7, 2, 19, 5, 1, 8, 4, 13, 2, 6, 1, 9]
Config = Callable[..., dict[str, Any]]


def losses(answer: Any) -> list[float]:
    return [event["loss"] for event in answer[0] if event["event"] == "log"]


def notes(answer: Any) -> list[str]:
    return [event["text"] for event in answer[0] if event["event"] == "note"]


def test_a_sharded_run_with_the_fused_head_is_the_stock_one_alone(
    config_for: Config, write_data: Callable[..., Path]
) -> None:
    data = write_data(TARGETS, [5])

    def config(name: str, **keys: Any) -> dict[str, Any]:
        size = {"train__global_batch_size": 4, "train__per_device_train_batch_size": 1}
        return config_for(name, data, optim__optim="sgd", optim__learning_rate=0.1, **size, **keys)

    alone = config("alone", parallel__zero_stage=0, model__fused_head=False)
    sharded = [
        config(f"zero{stage}-{saving}", parallel__zero_stage=stage, model__fused_head=True,
               train__gradient_checkpointing=saving)
        for stage, saving in [(0, False), (2, False), (3, False), (3, True)]
    ]  # fmt: skip
    (expected,) = run_ranks(train, 1, [alone])[0]
    assert notes(expected)[0] == "model.fused_head: stock head, because it is false"
    weights = load_file(Path(alone["train"]["output_dir"], "model", "model.safetensors"))
    for answer, one in zip(run_ranks(train, 2, sharded)[0], sharded, strict=True):
        assert notes(answer)[0].startswith("model.fused_head: fused head, because its loss and ")
        assert losses(answer) == pytest.approx(losses(expected), rel=1e-6)
        assert len(set(losses(answer))) == 8
        seen = load_file(Path(one["train"]["output_dir"], "model", "model.safetensors"))
        assert all((seen[name] - weights[name]).abs().max() <= 1e-6 for name in weights)


def test_a_language_model_sharded_and_fused_is_the_stock_one_alone() -> None:
    ((expected, losses_BT, best_BT),) = run_ranks(train_language_model, 1, [0], False)[0]
    assert len(set(expected)) == 4
    for seen, evaluated_BT, predicted_BT in run_ranks(train_language_model, 2, [1, 3], True)[0]:
        assert seen == pytest.approx(expected, rel=1e-6)
        assert torch.allclose(torch.tensor(evaluated_BT), torch.tensor(losses_BT), rtol=1e-5)
        assert predicted_BT == best_BT
