"""A run that trains an adapter: what is stored of it, and that it goes on from there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from bits import bits
from distributed.adapter_scenarios import LLAMA, export_adapter, train_quantised
from distributed.ranks import run_ranks
from distributed.scenarios import losses, train
from safetensors.torch import load_file
from tiny import save_tiny

from bigft.training.checkpoint.shards import SafeCheckpointEngine

pytestmark = pytest.mark.distributed

TARGETS = [3, 11, 1, 7, 2, 19, 5, 1, 8, 4, 13, 2]
CASES = [("lora", 0), ("lora", 2), ("lora", 3), ("qlora", 2), ("qlora", 3)]


def test_a_run_goes_on_to_the_last_bit_from_what_it_trained_alone(
    config_for: Callable[..., dict[str, Any]], write_data: Callable[..., Path]
) -> None:
    data = write_data(TARGETS)

    def configs(name: str, **keys: Any) -> list[dict[str, Any]]:
        return [
            config_for(
                f"{name}-{method}-{stage}",
                data,
                model__dropout=0.1,
                parallel__zero_stage=stage,
                train__max_steps=4,
                train__global_batch_size=4,
                train__per_device_train_batch_size=1,
                **keys,
            )
            | {"adapt": {"method": method, "lora_dropout": 0.1}}
            for method, stage in CASES
        ]

    whole = run_ranks(train, 2, configs("whole"))[0]
    run_ranks(train, 2, configs("cut"), 2)
    continued = run_ranks(train, 2, configs("cut", train__resume_from_checkpoint=True))[0]
    places = zip(configs("whole"), configs("cut"), strict=True)
    for case, expected, seen, pair in zip(CASES, whole, continued, places, strict=True):
        kept = losses(expected)
        assert losses(seen) == {step: kept[step] for step in (3, 4)}, case
        ours, theirs = (Path(config["train"]["output_dir"]) for config in pair)
        name = "model/adapter_model.safetensors"
        weights = load_file(ours / name)
        for key, tensor in load_file(theirs / name).items():
            assert torch.equal(tensor, weights[key]), (case, key)
        (shard, *_) = (theirs / "checkpoint-2" / "ds").glob("*model_states.pt")
        state = SafeCheckpointEngine().load(str(shard))
        names = state["module"]
        assert all("lora_" in name or "modules_to_save" in name for name in names), case
        assert not state.get("frozen_param_fragments"), case


def test_a_4_bit_base_may_be_sharded_too(tmp_path: Path) -> None:
    """ZeRO-3 trains as ZeRO-2 does, and a rank holds half of the base."""
    save_tiny(tmp_path, "llama", auto_class=LLAMA, hidden_size=64, intermediate_size=128)
    (whole, sharded), _ = run_ranks(train_quantised, 2, str(tmp_path), [2, 3])
    assert sharded["losses"] == pytest.approx(whole["losses"], rel=1e-6)
    assert len(set(whole["losses"])) == 4
    assert sharded["bytes"] == whole["bytes"] // 2


@pytest.mark.parametrize("method", ["lora", "p-tuning", "prefix"])
def test_an_adapter_is_exported_whole_from_zero_3(method: str, tmp_path: Path) -> None:
    save_tiny(tmp_path / "base", "llama", auto_class=LLAMA)
    told = run_ranks(export_adapter, 2, str(tmp_path), method)
    assert told[0] == told[1]
    ours, theirs, live = told[0]
    assert theirs == ours
    assert bits(load_file(tmp_path / "model" / "adapter_model.safetensors")) == live
