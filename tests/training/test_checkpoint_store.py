"""A checkpoint is there whole or not at all; newest and best stay; foreign code never runs."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed.ranks import run_ranks
from torch import nn
from training.scenarios import Canary, load_damaged, save_and_load

from bigft.config.errors import BadInput
from bigft.runtime.process_group import World
from bigft.runtime.run_directory import RunDirectory
from bigft.training.checkpoint import CheckpointStore, TrainerState
from bigft.training.checkpoint.shards import trained_state

ALONE = World(0, 0, 1, torch.device("cpu"), None)


class Shards:
    """What an engine is to the store: it writes its files under a tag. Dies at step `dies_at`."""

    def __init__(self, dies_at: int = -1) -> None:
        self.dies_at, self.step = dies_at, 0

    def save_checkpoint(
        self, directory: str, tag: str, save_latest: bool, exclude_frozen_parameters: bool
    ) -> None:
        assert not save_latest  # the newest is told by its name
        assert exclude_frozen_parameters  # a frozen base has files of its own
        Path(directory, tag).mkdir()
        if self.step == self.dies_at:
            raise KeyboardInterrupt
        Path(directory, tag, "shard.pt").write_text(str(self.step))


def save(
    directory: Path, steps: dict[int, int | None], limit: int | None = None, dies_at: int = -1
) -> list[int]:
    """Saves at each step, with the best step so far; the steps of the checkpoints in the end."""
    run = RunDirectory(directory)
    engine = Shards(dies_at)
    for step, best in steps.items():
        engine.step = step
        CheckpointStore(run, ALONE, limit).save(engine, TrainerState(step=step, best_step=best))
    return [step for step, _ in run.checkpoints()]


# -- which ones stay ----------------------------------------------------------------------------


def test_without_a_limit_every_checkpoint_stays(tmp_path: Path) -> None:
    assert save(tmp_path, dict.fromkeys([2, 9, 10, 30])) == [2, 9, 10, 30]


def test_a_run_that_went_back_goes_on_from_where_it_is_now(tmp_path: Path) -> None:
    """Resumed from step 2 and saved at 3: the older run's later checkpoints are not the newest."""
    save(tmp_path, dict.fromkeys([2, 4, 6]), limit=3)
    assert save(tmp_path, {3: None}, limit=2) == [2, 3]
    assert RunDirectory(tmp_path).latest_checkpoint == tmp_path / "checkpoint-3"
    aside = sorted(path.name for path in tmp_path.glob("superseded-*"))
    assert aside == ["superseded-checkpoint-4", "superseded-checkpoint-6"]  # nothing is lost


@pytest.mark.parametrize("limit", range(1, 10))
def test_the_newest_stay(limit: int, tmp_path: Path) -> None:
    steps = [10, 20, 30, 40, 50]
    assert save(tmp_path, dict.fromkeys(steps), limit) == steps[-limit:]


@pytest.mark.parametrize(
    ("limit", "best", "kept"),
    [
        (1, 10, [10, 40]),
        (2, 10, [10, 40]),
        (3, 10, [10, 30, 40]),
        (5, 10, [10, 20, 30, 40]),
        (6, 40, [10, 20, 30, 40]),
        (1, 40, [40]),
        (2, 40, [30, 40]),
    ],
)
def test_the_newest_and_the_best_stay(
    limit: int, best: int, kept: list[int], tmp_path: Path
) -> None:
    best_so_far = {step: min(step, best) for step in (10, 20, 30, 40)}
    assert save(tmp_path, best_so_far, limit) == kept


def test_a_best_step_that_was_never_saved_takes_no_room(tmp_path: Path) -> None:
    assert save(tmp_path, {10: 5, 20: 5, 30: 5}, limit=2) == [20, 30]


def test_a_run_that_continues_from_an_older_checkpoint_keeps_what_it_writes(
    tmp_path: Path,
) -> None:
    save(tmp_path, {10: None, 20: None, 30: None})
    assert 15 in save(tmp_path, {15: None}, limit=1)


def test_nothing_is_left_of_what_was_pruned_or_replaced(tmp_path: Path) -> None:
    save(tmp_path, {10: 10, 20: 20, 30: 30}, limit=1)
    save(tmp_path, {30: 30}, limit=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "checkpoint-30"]


def test_a_step_that_is_saved_again_replaces_the_older_one(tmp_path: Path) -> None:
    save(tmp_path, {10: None})
    (tmp_path / "checkpoint-10" / "ds" / "shard.pt").write_text("old")
    assert save(tmp_path, {10: None}) == [10]
    assert (tmp_path / "checkpoint-10" / "ds" / "shard.pt").read_text() == "10"


# -- the best -----------------------------------------------------------------------------------


def test_best_points_to_the_best_step_and_moves_with_the_directory(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    save(run, {10: None})
    assert RunDirectory(run).best is None
    save(run, {20: 20, 30: 20})
    assert RunDirectory(run).best == run / "checkpoint-20"
    save(run, {40: 40})
    run.rename(tmp_path / "moved")
    assert RunDirectory(tmp_path / "moved").best == tmp_path / "moved" / "checkpoint-40"


def test_a_best_step_that_was_never_saved_moves_nothing(tmp_path: Path) -> None:
    save(tmp_path, {10: 10, 20: 15})
    assert RunDirectory(tmp_path).best == tmp_path / "checkpoint-10"


# -- whole or not at all ------------------------------------------------------------------------


def test_an_interrupted_save_is_never_listed_and_the_next_one_succeeds(tmp_path: Path) -> None:
    save(tmp_path, {10: None})
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path, {20: None}, dies_at=20)
    run = RunDirectory(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2  # its remains are there
    assert [step for step, _ in run.checkpoints()] == [10]
    assert run.latest_checkpoint == tmp_path / "checkpoint-10"
    assert save(tmp_path, {20: None}) == [10, 20]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_directory_without_its_last_file_is_no_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, {10: None, 20: None})
    (tmp_path / "checkpoint-20" / "COMMIT").unlink()
    assert [step for step, _ in RunDirectory(tmp_path).checkpoints()] == [10]


# -- the loop's own numbers ---------------------------------------------------------------------


def test_the_state_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    state = TrainerState(
        step=7,
        world_size=3,
        global_batch={"global_batch_tokens": 512},
        data_fingerprint="ab" * 32,
        best_metric=0.1 + 0.2,
        best_step=5,
        evaluations_without_gain=1,
        loss_sums=[1 / 3, 2 / 3, 1e-300],
        window_targets=11,
        total_loss=2 / 7,
        total_targets=100,
        total_tokens=1000,
        training_seconds=1.5,
        skipped_steps=2,
        fused_head=True,
        kept={"adapt": {"method": "lora", "r": 8}},
    )
    assert not any(getattr(state, name) == getattr(TrainerState(), name) for name in _names())
    path = CheckpointStore(RunDirectory(tmp_path), ALONE, None).save(Shards(), state)
    assert TrainerState.read(path) == state


def _names() -> tuple[str, ...]:
    return TrainerState.__slots__


@pytest.mark.parametrize("content", [None, "{", '{"step": 3, "colour": 1}', "[]"])
def test_what_is_no_checkpoint_is_refused(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "trainer.json").write_text(content)
    with pytest.raises(BadInput) as caught:
        TrainerState.read(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"train.resume_from_checkpoint: {tmp_path} is not a checkpoint of")
    assert message.endswith("; name a checkpoint-<step> directory, or `true` for the newest")


# -- with DeepSpeed -----------------------------------------------------------------------------


@pytest.mark.distributed
@pytest.mark.parametrize("stage", [0, 1, 3])
def test_weights_and_optimizer_come_back(stage: int, tmp_path: Path) -> None:
    ((expected, losses),) = run_ranks(save_and_load, 1, str(tmp_path), stage)
    assert len(set(expected)) == 2
    assert losses == expected


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
    store = CheckpointStore(RunDirectory(tmp_path), ALONE, None)
    source, target = half_frozen(), half_frozen()
    frozen = target[0].weight.clone()
    held = trained_state(source)
    store.load(Holding(target, held), tmp_path / "checkpoint-1")
    assert torch.equal(target[2].weight, source[2].weight)
    assert torch.equal(target[0].weight, frozen)
    lacking = {name: tensor for name, tensor in held.items() if name != "2.bias"}
    for other in (lacking, held | {"4.bias": torch.ones(1)}, trained_state(half_frozen(4))):
        with pytest.raises(BadInput, match="holds other parameters than this config trains"):
            store.load(Holding(half_frozen(), other), tmp_path / "checkpoint-1")
