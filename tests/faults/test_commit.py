"""Killed, or out of disk, at any point of a save: the old checkpoints or the new one, never torn.

Each situation is first run whole, to count the points (each mkdir, write, fsync, rename, link and
removal of each rank) and to see what it leaves; then once per point, and a rank is killed there.
"""

from __future__ import annotations

import errno
import itertools
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from distributed.ranks import RankFailed
from distributed.ranks import run_ranks as run_deepspeed_ranks
from training.checkpoint.small import (
    SmallEngine,
    SmallWorld,
    in_light_process,
    run_ranks,
    save,
    steps_in,
    store_in,
)

from bigft.runtime.failpoints import LIST_VARIABLE
from bigft.training.checkpoint import TrainerState


class Situation(NamedTuple):
    """before: steps saved already.  step: of the save that is killed."""

    name: str
    before: tuple[int, ...]
    step: int
    limit: int | None = None
    best: int | None = None


SITUATIONS = [
    Situation("the first of a run", (), 10),
    Situation("one more", (10, 20), 30),
    Situation("room for two, and the best moves", (10, 20, 30), 40, limit=2, best=20),
    Situation("room for one, and leftovers of a death", (10, 20, 30), 40, limit=1),
    Situation("again, after a resume from 10", (10, 20, 30), 20),
]


def prepare(directory: Path, situation: Situation) -> None:
    """Two ranks have saved; a run died while it saved, and one while it collected."""
    engines = [SmallEngine(rank) for rank in range(2)]

    def work(world: SmallWorld) -> None:
        engine, store = engines[world.rank], store_in(directory, world)
        for engine.step in situation.before:
            assert store.save(engine, TrainerState(step=engine.step)).path

    if situation.before:
        assert run_ranks(work, 2) == [None, None]
        (directory / ".tmp-checkpoint-15-dead" / "ds").mkdir(parents=True)
        (directory / ".trash-checkpoint-5-dead").mkdir()


def save_once(directory: Path, situation: Situation, failures: str) -> list[Any]:
    def work(world: SmallWorld) -> str | None:
        engine = SmallEngine(world.rank)
        engine.step = situation.step
        store = store_in(directory, world, situation.limit)
        state = TrainerState(step=engine.step, best_step=situation.best, total_loss=0.5)
        return str(store.save(engine, state).path)

    return run_ranks(work, 2, failures)


def check_whole(directory: Path) -> list[int]:
    """The steps of all that resuming would accept; each is whole, and of that step."""
    store, steps = store_in(directory), steps_in(directory)
    for step in steps:
        checkpoint = directory / f"checkpoint-{step}"
        assert store.verified(checkpoint, fall_back=False) == (checkpoint, [])
        assert TrainerState.read(checkpoint).step == step
        for rank in range(2):
            expected = SmallEngine(rank)
            expected.step = step
            shard = checkpoint / "ds" / f"shard-{rank}.pt"
            assert shard.read_bytes() == expected.content()
    return steps


def points_of(directory: Path, situation: Situation, rank: int) -> list[str]:
    """The names of all failpoints that the rank passes in the save."""
    told = directory.with_name("points")
    told.write_text("")
    os.environ[LIST_VARIABLE] = str(told)
    save_once(directory, situation, f"checkpoint.*=list#{rank}")
    return told.read_text().split()


def kill_at_every_point(situation: Situation, place: Path) -> int:
    """The number of kills. Raises AssertionError at the first one after which not all is well."""
    template, whole, run = (place / name for name in ("template", "whole", "run"))
    template.mkdir()
    prepare(template, situation)
    kills = 0
    for rank in range(2):
        shutil.copytree(template, whole)
        passed = points_of(whole, situation, rank)
        stay = {*situation.before} & {*check_whole(whole)} - {situation.step}
        shutil.rmtree(whole)
        for point in range(1, len(passed) + 1):
            shutil.copytree(template, run)
            where = f"{passed[point - 1]}, number {point} of rank {rank}"
            answers = save_once(run, situation, f"checkpoint.*=kill@{point}#{rank}")
            assert answers[rank] == -signal.SIGKILL, where
            steps = {*check_whole(run)}
            assert stay <= steps, (where, steps)
            assert steps <= {*situation.before, situation.step}, (where, steps)
            assert "50" in save_once(run, situation._replace(step=50), "")[0], where
            assert 50 in check_whole(run), where
            assert not [*run.glob(".t*")], (where, os.listdir(run))
            shutil.rmtree(run)
            kills += 1
    return kills


@pytest.mark.parametrize("situation", SITUATIONS, ids=lambda situation: situation.name)
def test_killed_at_every_point_of_a_save(situation: Situation, tmp_path: Path) -> None:
    """After each kill every checkpoint that is there is whole, and those that were to stay are
    there; the next save succeeds and leaves nothing behind of the one that died."""
    kills = in_light_process(kill_at_every_point, situation, tmp_path)
    assert kills >= 37  # 208 in all situations together


@pytest.mark.parametrize("unlinked", range(1, 17))
def test_killed_while_old_ones_are_collected(unlinked: int, tmp_path: Path) -> None:
    """One more makes six; three are to go, of five files each: killed at any of these files. What
    is left of a checkpoint is all of it or nothing, and the three that stay are there."""

    def work(world: SmallWorld) -> None:
        unlink, calls = os.unlink, itertools.count(1)

        def dying(*given: Any, **named: Any) -> None:
            if "dir_fd" in named and next(calls) == unlinked:  # as shutil.rmtree calls it
                os.kill(os.getpid(), signal.SIGKILL)
            unlink(*given, **named)

        os.unlink = dying
        store_in(tmp_path, world, limit=3).save(SmallEngine(), TrainerState(step=60))

    save(tmp_path, 10, 20, 30, 40, 50)
    assert run_ranks(work, 1) == [-signal.SIGKILL if unlinked <= 15 else None]
    store = store_in(tmp_path)
    for step in steps_in(tmp_path):
        checkpoint = tmp_path / f"checkpoint-{step}"
        assert store.verified(checkpoint, False) == (checkpoint, [])
    assert set(steps_in(tmp_path)) >= {40, 50, 60}


# -- a disk that fails ----------------------------------------------------------------------------


@pytest.mark.parametrize("error", ["EIO", "ENOSPC", "EDQUOT"])
@pytest.mark.parametrize("rank", [0, 1])
def test_one_rank_cannot_write(rank: int, error: str, tmp_path: Path) -> None:
    """All ranks give up and say which rank failed; the older one stays; the next save succeeds."""
    run = tmp_path / "run"
    run.mkdir()
    points = 22 if rank == 0 else 11  # of shards, rank file, MANIFEST, COMMIT, the rename

    def work(world: SmallWorld) -> list[Any]:
        from bigft.runtime import failpoints

        engine, store, seen = SmallEngine(world.rank), store_in(run, world), []
        failpoints.arm("", world.rank)
        store.save(engine, TrainerState(step=1))
        for point in range(1, points + 1):
            failpoints.arm(f"checkpoint.*={error}@{point}#{rank}", world.rank)
            saved = store.save(engine, TrainerState(step=2))
            seen.append((str(saved.path), saved.why))
        failpoints.arm("", world.rank)
        return [seen, str(store.save(engine, TrainerState(step=3)).path)]

    first, second = run_ranks(work, 2)
    assert first == second
    failed, last = first
    for path, why in failed:
        assert path == "None", why
        assert f"rank {rank}: cannot" in why or "cannot write to" in why
        assert os.strerror(getattr(errno, error)) in why
    assert last.endswith("checkpoint-3")
    assert steps_in(run) == [1, 3]
    assert not [*run.glob(".t*")]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(disk)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("a small tmpfs: needs a root who may mount")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_costs_a_checkpoint_and_no_more(small_disk: Path, tmp_path: Path) -> None:
    """It fills up in the middle of a shard. What was half written is gone again, so that a smaller
    one fits after that."""

    def work(world: SmallWorld) -> list[str]:
        store, seen = store_in(small_disk, world), []
        for step, size in enumerate([100_000, 600_000, 100_000]):
            saved = store.save(SmallEngine(world.rank, size), TrainerState(step=step))
            seen.append(f"{saved.path and saved.path.name} {saved.why}")
        return seen

    first, second = run_ranks(work, 2)
    assert first == second
    assert "No space left on device" in first[1]
    assert first[1].startswith("None rank ")
    assert steps_in(small_disk) == [0, 2]
    assert store_in(small_disk).verified(small_disk / "checkpoint-2", False)[1] == []


def test_a_disk_without_room_for_another_one_is_not_filled_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, engine = store_in(tmp_path), SmallEngine(size=10_000)
    assert store.save(engine, TrainerState(step=1)).path
    usage = shutil.disk_usage(tmp_path)._replace(free=9_999)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    saved = store.save(engine, TrainerState(step=2))
    assert (saved.path, saved.why) == (None, "0.00 GB are free, the last one took 0.00 GB")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-1", "latest"]


# -- with DeepSpeed -------------------------------------------------------------------------------


@pytest.mark.distributed
def test_killed_while_deepspeed_saves(tmp_path: Path) -> None:
    """In the middle of a shard, before the rename, and after it."""
    found = kill_deepspeed(
        tmp_path,
        {
            0: ["checkpoint.write=kill@400#0"],
            1: ["checkpoint.rename=kill@2#0"],
            2: ["checkpoint.write=kill@20#1", "checkpoint.rename=kill@1#0"],
            3: ["checkpoint.write=kill@20#1", "checkpoint.rename=kill@2#0"],
        },
    )
    assert found == [1, 2, 1, 1, 1, 2]


@pytest.mark.faults
@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_killed_at_fifty_points_while_deepspeed_saves(stage: int, tmp_path: Path) -> None:
    from faults.engines import count_writes

    writes = run_deepspeed_ranks(count_writes, 2, str(tmp_path / "counted"), stage)
    kills = [
        f"checkpoint.write=kill@{1 + writes[rank] * part // 24}#{rank}"
        for rank in range(2)
        for part in range(24)
    ]
    kills += ["checkpoint.rename=kill@1#0", "checkpoint.rename=kill@2#0"]
    found = kill_deepspeed(tmp_path, {stage: kills})
    assert found[-2:] == [1, 2]


@pytest.mark.distributed
def test_a_disk_that_fails_under_one_rank_of_deepspeed(tmp_path: Path) -> None:
    """No rank is left waiting for another, no matter which shard fails where; training goes on."""
    from faults.engines import save_on_a_bad_disk

    failures = ["write=EIO@1#1", "write=ENOSPC@9#0", "fsync=EIO@1#1", "mkdir=EROFS@1"]
    first, second = run_deepspeed_ranks(save_on_a_bad_disk, 2, str(tmp_path), [0, 2, 3], failures)
    assert first == second
    for (whys, last, seen, expected), stage in zip(first, (0, 2, 3), strict=True):
        for why, error in zip(whys, (errno.EIO, errno.ENOSPC, errno.EIO, errno.EROFS), strict=True):
            assert os.strerror(error) in why, stage
        assert last.endswith("checkpoint-7")
        assert steps_in(tmp_path / str(stage)) == [1, 7]
        assert seen == expected, stage


def kill_deepspeed(place: Path, kills: dict[int, list[str]]) -> list[int]:
    """Kills the second save of two ranks, by ZeRO stage; the steps that a resume then finds. What
    it loads must go on as the run that was not killed."""
    from faults.engines import load_what_is_left, save_twice  # torch: not for the light process

    runs = []
    for stage, failures in kills.items():
        for number, failure in enumerate(failures):
            run = str(place / f"stage-{stage}-{number}")
            with pytest.raises(RankFailed, match=r"died without a word|raised"):
                run_deepspeed_ranks(save_twice, 2, run, stage, failure)
            runs.append((run, stage))
    first, second = run_deepspeed_ranks(load_what_is_left, 2, runs)
    assert first == second
    for (run, _), (_, refused, same) in zip(runs, first, strict=True):
        assert refused == [], run
        assert same, run
    return [step for step, _, _ in first]
