"""What two ranks with real DeepSpeed engines do in the tests of the commit protocol."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from training.scenarios import engine_of, train

from bigft.runtime import failpoints
from bigft.runtime.process_group import World
from bigft.runtime.run_directory import RunDirectory
from bigft.training.checkpoint import CheckpointStore, TrainerState


def save_twice(world: World, directory: str, stage: int, failures: str) -> None:
    """After one step and after two; the failures are armed for the second save."""
    if world.is_first:
        os.mkdir(directory)
    world.barrier()
    store = store_in(directory, world)
    engine = engine_of(world, stage)
    train(engine, 1)
    assert store.save(engine, TrainerState(step=1)).path
    train(engine, 1)
    failpoints.arm(failures, world.rank)
    store.save(engine, TrainerState(step=2))
    world.barrier()  # with the rank that was killed on its way here


def count_writes(world: World, directory: str, stage: int) -> int:
    """How many writes this rank makes in the second save."""
    told = Path(f"{directory}-{world.rank}")
    os.environ[failpoints.LIST_VARIABLE] = str(told)
    save_twice(world, directory, stage, "checkpoint.write=list")
    return len(told.read_text().split())


def load_what_is_left(world: World, runs: list[tuple[str, int]]) -> list[tuple[int, Any, bool]]:
    """Per directory of `save_twice`, and its stage: the step that a resume finds, what it refuses
    on the way there, and whether what it loads goes on with the losses of a run never stopped."""
    found = []
    engines: dict[int, Any] = {}
    losses: dict[int, list[float]] = {}
    for directory, stage in runs:
        if stage not in engines:
            engines[stage] = engine_of(world, stage)
            train(engines[stage], 1)
            losses[stage] = train(engines[stage], 1) + train(engines[stage], 2)
        engine, store = engines[stage], store_in(directory, world)
        newest = RunDirectory(directory).latest_checkpoint
        assert newest is not None
        checkpoint, refused = store.verified(newest, fall_back=True)
        store.load(engine, checkpoint)
        step = TrainerState.read(checkpoint).step
        # The optimizer's state shows in the losses from the second step on.
        seen = (train(engine, 1) if step == 1 else []) + train(engine, 2)
        found.append((step, refused, seen == losses[stage][step - 1 :]))
    return found


def save_on_a_bad_disk(
    world: World, directory: str, stages: list[int], failures: list[str]
) -> list[Any]:
    """Per stage: why each save failed, the path of one that did not, and the losses in between
    beside those of a run that saved nothing."""
    answers = []
    for stage in stages:
        run = Path(directory, str(stage))
        if world.is_first:
            run.mkdir()
        world.barrier()
        engine, undisturbed = engine_of(world, stage), engine_of(world, stage)
        store = store_in(str(run), world)
        assert store.save(engine, TrainerState(step=1)).path
        whys, losses = [], []
        for failure in failures:
            failpoints.arm(f"checkpoint.{failure}", world.rank)
            saved = store.save(engine, TrainerState(step=2))
            failpoints.arm("")
            assert saved.path is None
            whys.append(saved.why)
            losses += train(engine, 1)
        last = str(store.save(engine, TrainerState(step=7)).path)
        expected = [train(undisturbed, 1)[0] for _ in failures]
        answers.append((whys, last, losses, expected))
    return answers


def store_in(directory: str, world: World) -> CheckpointStore:
    return CheckpointStore(RunDirectory(directory), world, None, {}, False)
