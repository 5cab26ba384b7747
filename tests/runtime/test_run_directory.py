"""The run directory: its files, and who may take it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bigft.config.errors import BadInput
from bigft.config.exit_codes import EXIT_HUNG, EXIT_RESUMABLE
from bigft.runtime.environment import PARENT
from bigft.runtime.local_ranks import Ended
from bigft.runtime.lock import LockLost
from bigft.runtime.run_directory import RunDirectory
from bigft.runtime.run_state import MAX_CRASHES

HeldBy = Callable[[Path], "subprocess.Popen[str]"]


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "run")


def commit(directory: RunDirectory, step: int) -> Path:
    path = directory.path / f"checkpoint-{step}"
    path.mkdir()
    (path / "COMMIT").touch()
    return path


def end(directory: RunDirectory, status: str) -> None:
    directory.claim(resume=False)
    directory.update(status=status)
    directory.release()


def die(directory: RunDirectory) -> None:
    """What is left when the process that holds it is killed: run.json as it was, and nobody."""
    directory.release()


def test_a_new_directory_is_private(directory: RunDirectory) -> None:
    directory.create()
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o700


def test_the_mode_of_an_existing_directory_stays(directory: RunDirectory) -> None:
    directory.path.mkdir()
    directory.path.chmod(0o755)
    directory.create()
    assert stat.S_IMODE(directory.path.stat().st_mode) == 0o755


def test_a_directory_that_cannot_be_written_is_refused_by_the_key_that_names_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        BadInput, match=r"^train\.output_dir: cannot write to .*file/run: File exists; "
    ):
        RunDirectory(tmp_path / "file" / "run").create()


def test_a_claim_records_the_holder_and_the_facts(directory: RunDirectory) -> None:
    run = directory.claim(resume=False, world_size=2, versions={"torch": "2.13"})
    assert directory.read() == run
    assert run["status"] == "running"
    assert run["pid"] == os.getpid()
    assert run["world_size"] == 2
    assert run["versions"] == {"torch": "2.13"}


def test_an_update_changes_only_what_it_names(directory: RunDirectory) -> None:
    before = directory.claim(resume=False, world_size=2)
    directory.update(status="failed", why="loss is NaN", exit_code=1)
    after = directory.read()
    assert (after["status"], after["why"], after["exit_code"]) == ("failed", "loss is NaN", 1)
    assert (after["run_id"], after["world_size"]) == (before["run_id"], 2)


def test_a_finished_run_is_not_written_over(directory: RunDirectory) -> None:
    end(directory, "finished")
    with pytest.raises(
        BadInput, match=r"holds a finished run; choose .*resume_from_checkpoint=true"
    ):
        directory.claim(resume=False)


def test_a_finished_run_without_checkpoints_is_not_trained_anew(directory: RunDirectory) -> None:
    """`true` would mean to begin from nothing, and to write over its model."""
    end(directory, "finished")
    refused = r"holds a finished run, and no checkpoint to go on from; choose another"
    with pytest.raises(BadInput, match=refused):
        directory.claim(resume=True)
    commit(directory, 10)
    directory.claim(resume=True)


def test_checkpoints_of_an_unfinished_run_are_not_written_over(directory: RunDirectory) -> None:
    end(directory, "resumable")
    commit(directory, 10)
    with pytest.raises(BadInput, match="holds the checkpoints of an unfinished run"):
        directory.claim(resume=False)


def test_a_resumed_run_keeps_its_id_and_its_facts(directory: RunDirectory) -> None:
    run = directory.claim(resume=False, global_batch=16, world_size=2)
    directory.update(status="resumable")
    directory.release()
    commit(directory, 10)
    again = directory.claim(resume=True, world_size=4)
    assert (again["run_id"], again["global_batch"], again["world_size"]) == (run["run_id"], 16, 4)


def test_a_run_that_left_nothing_to_lose_gives_way_to_a_new_one(directory: RunDirectory) -> None:
    run = directory.claim(resume=False, global_batch=16)
    directory.update(status="failed")
    again = directory.claim(resume=False)
    assert again["run_id"] != run["run_id"]
    assert "global_batch" not in again


@pytest.mark.parametrize("resume", [False, True])
def test_a_living_holder_is_named(directory: RunDirectory, held_by: HeldBy, resume: bool) -> None:
    other = held_by(directory.path)
    before = directory.run_file.read_bytes()
    for refused in (directory.check, directory.claim):
        with pytest.raises(BadInput, match=rf"is held by process {other.pid} on "):
            refused(resume=resume)
    assert directory.run_file.read_bytes() == before
    assert directory.observe()["status"] == "running"


def test_a_claim_that_is_refused_holds_nothing(directory: RunDirectory) -> None:
    end(directory, "finished")
    with pytest.raises(BadInput):
        directory.claim(resume=False)
    assert not (directory.path / "LOCK").exists()


def test_a_claim_of_the_parent_counts_for_its_ranks(directory: RunDirectory) -> None:
    run = directory.claim(resume=False)
    commit(directory, 1)
    code = (
        "import sys; from bigft.runtime.run_directory import RunDirectory;"
        "print(RunDirectory(sys.argv[1]).claim(resume=False, world_size=2)['run_id'])"
    )
    rank = subprocess.run(
        [sys.executable, "-c", code, str(directory.path)],
        env={**os.environ, PARENT: str(os.getpid())},
        capture_output=True,
        text=True,
        check=True,
    )
    assert rank.stdout.strip() == run["run_id"]
    assert directory.read() == run | {"world_size": 2}


@pytest.mark.parametrize(("num_checkpoints", "status"), [(0, "failed"), (1, "resumable")])
def test_a_run_whose_process_is_gone_is_seen_to_have_died(
    directory: RunDirectory, held_by: HeldBy, num_checkpoints: int, status: str
) -> None:
    other = held_by(directory.path)
    for step in range(num_checkpoints):
        commit(directory, step)
    assert directory.observe()["status"] == "running"
    other.kill()
    other.communicate()
    observed = directory.observe()
    assert observed["status"] == status
    assert observed["why"] == f"died: process {other.pid} is gone"


def test_a_run_of_another_host_is_believed(directory: RunDirectory) -> None:
    directory.claim(resume=False)
    lock = directory.path / "LOCK"
    lock.write_text(json.dumps(json.loads(lock.read_text()) | {"host": "another", "pid": 1}))
    assert directory.observe()["status"] == "running"
    assert not directory.is_ours()
    with pytest.raises(LockLost, match="was taken over by process 1 on another"):
        directory.update(status="finished")
    assert directory.crashed("the process that was cut off") == "failed"
    assert directory.read()["status"] == "running", "it is the other's run now"


@pytest.mark.parametrize("lock", [None, "", "{}"], ids=["none", "empty", "a stranger's"])
def test_what_a_run_leaves_is_not_published_once_the_lock_is_lost(
    directory: RunDirectory, lock: str | None
) -> None:
    directory.claim(resume=False)
    directory.write_config("seed: 1\n")
    before = {path: path.read_bytes() for path in directory.path.glob("*.*")}
    (directory.path / "LOCK").unlink()
    if lock is not None:
        (directory.path / "LOCK").write_text(lock)
    for publish in (
        lambda: directory.update(status="finished"),
        lambda: directory.write_config("seed: 2\n"),
        lambda: directory.write_results({"train_loss": 0.5}),
    ):
        with pytest.raises(LockLost):
            publish()
    assert {path: path.read_bytes() for path in directory.path.glob("*.*")} == before


# -- crashes --------------------------------------------------------------------------------------


@pytest.mark.parametrize("silently", [False, True], ids=["raises", "is killed"])
def test_a_run_is_given_up_after_three_restarts_without_progress(
    directory: RunDirectory, silently: bool
) -> None:
    def start_and_crash(resume: bool | Path, *saved: int) -> str:
        directory.claim(resume=resume)
        for step in saved:
            commit(directory, step)
        if not silently:
            directory.crashed("RuntimeError: step 13")
        die(directory)
        return str(directory.observe()["status"])

    assert start_and_crash(False, 5, 10) == "resumable"
    assert [start_and_crash(True) for _ in range(2)] == ["resumable", "resumable"]
    assert start_and_crash(True) == "failed"
    why = "died: process" if silently else "RuntimeError: step 13"
    newest = directory.path / "checkpoint-10"
    for refused in (directory.check, directory.claim):
        with pytest.raises(BadInput) as told:
            refused(resume=True)
        (problem,) = told.value.problems
        assert problem.what.startswith(f"{directory.path} crashed 3 times in a row without a newer")
        assert f"the last time after step 0: {why}" in problem.what
        assert problem.fix.endswith(f"train.resume_from_checkpoint={newest}")
    # A person looked at it and named the checkpoint: it counts from there again.
    assert [start_and_crash(newest), start_and_crash(True)] == ["resumable"] * 2
    assert start_and_crash(True, 20) == "resumable", "progress"
    assert directory.observe()["crashes"] == 0
    assert [start_and_crash(True) for _ in range(3)] == ["resumable", "resumable", "failed"]


def test_a_run_that_never_saved_is_to_be_started_anew(directory: RunDirectory) -> None:
    for _ in range(MAX_CRASHES):
        directory.claim(resume=True)
        die(directory)
    with pytest.raises(BadInput, match=r"start anew: train\.resume_from_checkpoint=false"):
        directory.claim(resume=True)
    assert directory.claim(resume=False)["crashes"] == 0


def test_stops_neither_count_nor_hide_crashes(directory: RunDirectory) -> None:
    directory.create()
    commit(directory, 10)
    for ends in ("crash", "stop", "stop", "crash", "stop"):
        directory.claim(resume=True)
        if ends == "crash":
            directory.crashed("again")
        else:
            directory.update(status="resumable", exit_code=EXIT_RESUMABLE)
        directory.release()
    assert directory.observe()["crashes"] == 2


FAILED: dict[str, Any] = {"status": "failed", "why": "the loss is NaN"}


@pytest.mark.parametrize(
    ("ended", "said", "status", "why"),
    [
        (Ended(137, 0, "rank 0 ended first"), {}, "resumable", "rank 0 ended first"),
        (Ended(137, 1, "rank 1 ended first"), {}, "resumable", "rank 1 ended first"),
        (Ended(137, 1, "rank 1 ended first"), "closed by peer", "resumable", "rank 1 ended first"),
        (Ended(1, 0, "rank 0 ended first"), "out of memory", "resumable", "out of memory"),
        (Ended(EXIT_HUNG, 1, "rank 1 ended first"), "rank 2 hangs", "resumable", "rank 2 hangs"),
        (Ended(1, 1, "rank 1 ended first"), FAILED, "failed", "the loss is NaN"),
        (Ended(EXIT_RESUMABLE, 0), {}, "resumable", "stopped"),
        (Ended(), {"status": "finished"}, "finished", ""),
    ],
)
def test_the_parent_knows_best_who_died_first(
    directory: RunDirectory, ended: Ended, said: str | dict[str, Any], status: str, why: str
) -> None:
    directory.claim(resume=False)
    commit(directory, 1)
    if isinstance(said, str):
        directory.crashed(said)
    else:
        directory.update(**said)
    directory.ranks_ended(ended)
    run = directory.read()
    assert (run["status"], run["why"]) == (status, why)
    assert run["crashes"] == 0, "it saved, and was told of one end twice"


# -- files ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [None, "", "[]", '{"no": "status"}'])
def test_what_is_no_run_directory_is_refused(directory: RunDirectory, content: str | None) -> None:
    directory.create()
    if content is not None:
        directory.run_file.write_text(content)
    with pytest.raises(BadInput, match=r"run\.json"):
        directory.read()


def test_files_are_replaced_whole_and_leave_nothing_behind(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory.create()
    directory.write_config("seed: 1\n")

    def crash(descriptor: int) -> None:
        raise OSError("killed")

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(OSError, match="killed"):
        directory.write_config("seed: 2\n")
    assert directory.config_file.read_text() == "seed: 1\n"
    monkeypatch.undo()
    directory.write_config("seed: 3\n")
    assert {path.name for path in directory.path.iterdir()} == {"config.yaml", "logs"}


def test_results_add_up_and_are_sorted(directory: RunDirectory) -> None:
    directory.create()
    directory.write_results({"train_loss": 0.5, "eval_f1": 0.4})
    directory.write_results({"test_f1": 0.3})
    results = json.loads(directory.results_file.read_text())
    assert list(results.items()) == [("eval_f1", 0.4), ("test_f1", 0.3), ("train_loss", 0.5)]


def test_checkpoints_are_the_committed_ones_by_step(directory: RunDirectory) -> None:
    directory.create()
    assert directory.latest_checkpoint is None
    for step in (90, 100, 9):
        commit(directory, step)
    (directory.path / "checkpoint-200").mkdir()  # not committed
    commit(directory, 300).rename(directory.path / "checkpoint-old")
    commit(directory, 400).rename(directory.path / "checkpoint-0400")
    (directory.path / "checkpoint-500").symlink_to("checkpoint-100")
    assert [step for step, _ in directory.checkpoints()] == [9, 90, 100]
    assert directory.latest_checkpoint == directory.path / "checkpoint-100"


def test_best_is_what_the_link_points_to(directory: RunDirectory) -> None:
    directory.create()
    assert directory.best is None
    path = commit(directory, 9)
    (directory.path / "best").symlink_to("checkpoint-9")
    assert directory.best == path.resolve()
    (path / "COMMIT").unlink()
    path.rmdir()
    assert directory.best is None
