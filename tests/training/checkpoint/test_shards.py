"""DeepSpeed's shards come back to the last bit; foreign code in them never runs."""

from __future__ import annotations

import os
import pickle
from enum import Enum
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from distributed.ranks import run_ranks
from torch import nn
from training.scenarios import Canary, load_damaged, save_and_load

from bigft.config.errors import BadInput
from bigft.training.checkpoint.shards import SafeCheckpointEngine, trained_state


@pytest.mark.distributed
@pytest.mark.parametrize("stage", [0, 1, 3])
def test_weights_and_optimizer_come_back(stage: int, tmp_path: Path) -> None:
    ((expected, losses),) = run_ranks(save_and_load, 1, str(tmp_path), stage)
    assert len(set(expected)) == 2
    assert losses == expected


def test_a_save_ticks_for_every_shard(tmp_path: Path) -> None:
    writer, ticks = SafeCheckpointEngine(), []

    def save_checkpoint(directory: str, **options: Any) -> None:
        for name in ("model.pt", "optimizer.pt"):
            writer.save({"weight": torch.ones(3)}, f"{directory}/{name}")

    deepspeed = SimpleNamespace(save_checkpoint=save_checkpoint)
    written, why = writer.save_shards(deepspeed, tmp_path, lambda: ticks.append(None))
    assert (list(written), why) == (["model.pt", "optimizer.pt"], "")
    assert len(ticks) == 2


@pytest.fixture(scope="module", params=[1, 3])
def damaged(request: Any, tmp_path_factory: Any) -> tuple[dict[Any, tuple[str, str]], Path]:
    directory = tmp_path_factory.mktemp("damaged")
    canary = directory / "canary"
    return run_ranks(load_damaged, 1, str(directory), request.param, str(canary))[0], canary


@pytest.mark.distributed
def test_a_foreign_class_in_a_shard_is_refused_and_its_code_does_not_run(
    damaged: tuple[dict[Any, tuple[str, str]], Path],
) -> None:
    answers, canary = damaged
    refused = [kind for (_, damage), (kind, _) in answers.items() if damage == "foreign class"]
    assert len(refused) == 2
    assert "" not in refused
    assert not canary.exists()


@pytest.mark.distributed
def test_a_shard_that_is_missing_or_damaged_is_named(
    damaged: tuple[dict[Any, tuple[str, str]], Path],
) -> None:
    answers, _ = damaged
    assert len(answers) == 6
    for (shard, damage), (kind, message) in answers.items():
        assert kind == "BadInput", (shard, damage, kind)
        assert "checkpoint-1" in message
        assert "weights_only" not in message  # torch's advice is to run the foreign code


def test_the_canary_sings(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Canary(str(tmp_path / "canary"))))
    assert os.path.exists(tmp_path / "canary")


# -- frozen parameters --------------------------------------------------------------------------


def half_frozen(width: int = 3) -> nn.Module:
    """Its first layer is frozen, and tied to one that has no other name of its own."""
    module = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Linear(3, width), nn.Linear(3, 3))
    module[0].requires_grad_(False)
    module[3].weight = module[0].weight
    return module


def test_a_checkpoint_holds_what_is_trained_and_buffers_alone() -> None:
    kept = {name.partition(".")[0] for name in trained_state(half_frozen())}
    assert kept == {"1", "2", "3"}
    assert "3.weight" not in trained_state(half_frozen())
    assert "3.bias" in trained_state(half_frozen())
    assert "1.running_mean" in trained_state(half_frozen())


class Holding:
    """What an engine is to a load: it gives the shard's parameters to who puts them in."""

    def __init__(self, module: nn.Module, held: dict[str, torch.Tensor]) -> None:
        self.module, self.held = module, held

    def load_checkpoint(self, directory: str, tag: str, custom_load_fn: Any) -> None:
        custom_load_fn(src=self.held, dst=self.module)


def test_only_what_the_config_trains_is_loaded(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-1" / "ds").mkdir(parents=True)
    (tmp_path / "checkpoint-1" / "ds" / "mp_rank_00_model_states.pt").touch()
    shards, checkpoint = SafeCheckpointEngine(), tmp_path / "checkpoint-1"
    source, target = half_frozen(), half_frozen()
    frozen = target[0].weight.clone()
    held = trained_state(source)
    shards.load_shards(Holding(target, held), checkpoint)
    assert torch.equal(target[2].weight, source[2].weight)
    assert torch.equal(target[0].weight, frozen)
    lacking = {name: tensor for name, tensor in held.items() if name != "2.bias"}
    for other in (lacking, held | {"4.bias": torch.ones(1)}, trained_state(half_frozen(4))):
        with pytest.raises(BadInput, match="holds other parameters than this config trains"):
            shards.load_shards(Holding(half_frozen(), other), checkpoint)


class Stage(int, Enum):
    """As Python 3.11.3 and older pickle every enumeration."""

    TWO = 2

    def __reduce_ex__(self, protocol: Any) -> Any:
        return getattr, (self.__class__, self._name_)


def test_members_of_enumerations_are_stored_as_their_values(tmp_path: Path) -> None:
    shard = str(tmp_path / "shard.pt")
    weights = torch.arange(3.0)
    SafeCheckpointEngine().save({"zero_stage": Stage.TWO, "groups": [(Stage.TWO, weights)]}, shard)
    loaded = SafeCheckpointEngine().load(shard)
    assert type(loaded["zero_stage"]) is int
    assert loaded["zero_stage"] == 2
    assert torch.equal(loaded["groups"][0][1], weights)
