"""Which checkpoints stay, which is the best, and what a save tells of itself."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from training.checkpoint.small import SmallEngine, SmallWorld, run_ranks, steps_in, store_in
from training.disk import watched

from bigft.config.errors import BadInput
from bigft.runtime.lock import LockLost
from bigft.runtime.run_directory import RunDirectory
from bigft.training.checkpoint import CheckpointStore, TrainerState
from bigft.training.checkpoint.manifest import Manifest
from bigft.training.checkpoint.store import Saved


def save(directory: Path, steps: dict[int, int | None], limit: int | None = None) -> list[int]:
    """Saves at each step, with the best step so far; the steps of the checkpoints in the end."""
    engine = SmallEngine()
    for engine.step, best in steps.items():
        state = TrainerState(step=engine.step, best_step=best)
        assert store_in(directory, limit=limit).save(engine, state).path
    return steps_in(directory)


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
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best", "checkpoint-30", "latest"]


def test_a_step_that_is_saved_again_replaces_the_older_one(tmp_path: Path) -> None:
    save(tmp_path, {10: None})
    shard = tmp_path / "checkpoint-10" / "ds" / "shard-0.pt"
    shard.write_text("old")
    assert save(tmp_path, {10: None}) == [10]
    assert shard.read_text().startswith("rank 0 at step 10")


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


# -- the loop's own numbers ---------------------------------------------------------------------


def test_the_state_comes_back_to_the_last_bit(tmp_path: Path) -> None:
    state = TrainerState(
        step=7,
        world_size=3,
        best_metric=0.1 + 0.2,
        best_step=5,
        evaluations_without_gain=1,
        loss_sums=[1 / 3, 2 / 3, 1e-300],
        window_targets=11,
        window_tokens=12,
        window_seconds=0.25,
        total_loss=2 / 7,
        total_targets=100,
        total_tokens=1000,
        training_seconds=1.5,
        skipped_steps=2,
        nonfinite_steps=3,
        nonfinite_in_a_row=4,
        failed_saves=5,
        save_seconds=0.7,
        evaluation_due=True,
        fused_head=True,
        judged_by="f1",
        frozen="0123",
    )
    fresh = TrainerState()
    assert all(getattr(state, f.name) != getattr(fresh, f.name) for f in fields(state))
    path = store_in(tmp_path).save(SmallEngine(), state).path
    assert path is not None
    assert TrainerState.read(path) == state


@pytest.mark.parametrize("content", [None, "{", '{"step": 3, "colour": 1}', "[]"])
def test_what_is_no_checkpoint_is_refused(content: str | None, tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / "trainer.json").write_text(content)
    with pytest.raises(BadInput) as caught:
        TrainerState.read(tmp_path)
    message = str(caught.value)
    assert message.startswith(f"train.resume_from_checkpoint: {tmp_path} is not a checkpoint of")
    assert message.endswith("; name a checkpoint-<step> directory, or `true` for the newest")


# -- what a save does and tells -------------------------------------------------------------------


def test_the_layout(tmp_path: Path) -> None:
    """Every rank's files with their hashes in its rank file, and all of them in MANIFEST."""

    def work(world: SmallWorld) -> int:
        saved = store_in(tmp_path, world).save(SmallEngine(world.rank), TrainerState(step=5))
        assert saved.path == tmp_path / "checkpoint-5"
        return saved.num_bytes

    sizes = run_ranks(work, 2)
    checkpoint = tmp_path / "checkpoint-5"
    files = [path for path in checkpoint.rglob("*") if path.is_file()]
    names = {str(path.relative_to(checkpoint)) for path in files}
    shards, ranks = {"ds/shard-0.pt", "ds/shard-1.pt"}, {"rank-00000.json", "rank-00001.json"}
    assert names == {"COMMIT", "MANIFEST.json", "trainer.json", *shards, *ranks}
    manifest = Manifest.read(checkpoint)
    assert set().union(*manifest.files) == names - {"COMMIT", "MANIFEST.json"}
    told = json.loads((checkpoint / "rank-00001.json").read_bytes())
    stamp = manifest.files[1]["ds/shard-1.pt"]
    assert told == {"ds/shard-1.pt": {"size": 40, "xxh128": stamp.xxh128}}
    assert sizes == [manifest.num_bytes] * 2
    assert manifest.num_bytes == sum(path.stat().st_size for path in files) - sum(
        (checkpoint / name).stat().st_size for name in ("COMMIT", "MANIFEST.json")
    )
    assert (tmp_path / "latest").read_text() == "checkpoint-5\n"


def test_all_is_on_the_disk_before_its_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the directory gets its name, its files and names have been synced; then its parent is.
    A power cut can take away what was not."""
    unsynced, synced = watched(monkeypatch, "checkpoint-5")
    assert store_in(tmp_path).save(SmallEngine(), TrainerState(step=5)).path
    assert unsynced == []
    assert synced[0] == tmp_path


def test_a_checkpoint_that_was_resumed_from_is_never_removed(tmp_path: Path) -> None:
    save(tmp_path, {10: None, 20: None})
    store, engine = store_in(tmp_path, limit=1), SmallEngine()
    assert store.verified(tmp_path / "checkpoint-20", fall_back=True)[1] == []
    for step in (30, 40):
        assert store.save(engine, TrainerState(step=step)).path
    assert steps_in(tmp_path) == [20, 40]


def test_best_moves_without_a_save(tmp_path: Path) -> None:
    save(tmp_path, {10: 10, 20: 10})
    store_in(tmp_path).point_best_at(20)
    assert RunDirectory(tmp_path).best == tmp_path / "checkpoint-20"
    store_in(tmp_path).point_best_at(30)  # never saved
    store_in(tmp_path).point_best_at(None)
    assert RunDirectory(tmp_path).best == tmp_path / "checkpoint-20"


@pytest.mark.parametrize("asked", [1, 2, 3])
def test_a_run_that_lost_its_directory_commits_nothing(
    asked: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked before anything is written, before COMMIT, and before the rename."""
    save(tmp_path, {10: None})
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    answers = iter([True] * (asked - 1) + [False])
    monkeypatch.setattr(RunDirectory, "is_ours", lambda self: next(answers))
    with pytest.raises(LockLost, match="another run has taken the directory over"):
        store_in(tmp_path).save(SmallEngine(), TrainerState(step=20))
    assert next(answers, None) is None
    for path, time in before.items():
        assert path == tmp_path or path.stat().st_mtime_ns == time
    monkeypatch.undo()
    assert steps_in(tmp_path) == [10]


def test_the_first_ranks_word_counts_on_all(tmp_path: Path) -> None:
    """Two ranks verify their own files: what one of them finds is known to both."""

    def work(world: SmallWorld) -> Any:
        engine, store = SmallEngine(world.rank), store_in(tmp_path, world)
        for engine.step in (1, 2):
            assert store.save(engine, TrainerState(step=engine.step)).path
        if not world.is_first:  # its own file, which the other one does not read
            os.truncate(tmp_path / "checkpoint-2" / "ds" / "shard-1.pt", 3)
        world.gather(None)
        checkpoint, refused = store.verified(tmp_path / "checkpoint-2", fall_back=True)
        return [checkpoint.name, refused]

    first, second = run_ranks(work, 2)
    assert first == second
    assert first[0] == "checkpoint-1"
    assert first[1] == [
        f"{tmp_path}/checkpoint-2 is not used: ds/shard-1.pt: 3 bytes, 40 were written"
    ]


def test_what_is_saved_is_private_or_readable_never_writable_by_others(tmp_path: Path) -> None:
    save(tmp_path, {10: None})
    for path in (tmp_path / "checkpoint-10").rglob("*"):
        assert not path.stat().st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def test_the_watchdog_hears_of_every_file_that_is_written_and_read(tmp_path: Path) -> None:
    heard: list[str] = []
    store = CheckpointStore(RunDirectory(tmp_path), SmallWorld(), None, {}, False, heard.append)
    path = store.save(SmallEngine(), TrainerState(step=3)).path
    assert path is not None
    files = [each for each in path.rglob("*") if each.is_file()]
    assert heard == ["saving step 3"] * len(files)
    heard.clear()
    store.verified(path, fall_back=False)
    assert heard == ["verifying checkpoint-3"] * (len(files) - 2)  # MANIFEST and COMMIT list them


def test_a_save_that_was_given_up_says_why(tmp_path: Path) -> None:
    engine = SmallEngine()
    engine.save_shards = lambda engine, checkpoint, tick: ({}, "cannot write shard-0.pt: no")
    saved = store_in(tmp_path).save(engine, TrainerState(step=1))
    assert saved == Saved(None, "rank 0: cannot write shard-0.pt: no", 0)
    assert list(tmp_path.iterdir()) == []


def test_another_runs_checkpoint_takes_no_room(tmp_path: Path) -> None:
    other, own = tmp_path / "other", tmp_path / "own"
    other.mkdir(), own.mkdir()
    save(other, {20: None})
    store, engine = store_in(own, limit=1), SmallEngine()
    store.verified(other / "checkpoint-20", fall_back=False)
    for engine.step in (20, 30):
        assert store.save(engine, TrainerState(step=engine.step)).path
    assert steps_in(own) == [30]
