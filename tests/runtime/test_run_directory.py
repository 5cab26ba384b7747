"""The run directory: its files, and who may take it."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bigft.config.errors import BadInput
from bigft.runtime.run_directory import RunDirectory


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    return RunDirectory(tmp_path / "run")


@pytest.fixture
def other_process() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()


def claim_as(process: subprocess.Popen[bytes], directory: RunDirectory) -> None:
    """run.json as `process` would have written it."""
    directory.claim(resume=True)
    started = Path(f"/proc/{process.pid}/stat").read_text().split()[21]
    directory.update(pid=process.pid, pid_started=int(started))


def commit(directory: RunDirectory, step: int) -> Path:
    path = directory.path / f"checkpoint-{step}"
    path.mkdir()
    (path / "COMMIT").touch()
    return path


def end(directory: RunDirectory, status: str) -> None:
    directory.claim(resume=False)
    directory.update(status=status)


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


def test_checkpoints_of_an_unfinished_run_are_not_written_over(directory: RunDirectory) -> None:
    end(directory, "resumable")
    commit(directory, 10)
    with pytest.raises(BadInput, match="holds the checkpoints of an unfinished run"):
        directory.claim(resume=False)


def test_a_resumed_run_keeps_its_id_and_its_facts(directory: RunDirectory) -> None:
    run = directory.claim(resume=False, global_batch=16, world_size=2)
    directory.update(status="resumable")
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
def test_a_living_holder_is_named(
    directory: RunDirectory, other_process: subprocess.Popen[bytes], resume: bool
) -> None:
    claim_as(other_process, directory)
    with pytest.raises(BadInput, match=rf"is held by process {other_process.pid} on "):
        directory.claim(resume=resume)


def test_a_process_id_used_again_does_not_hold_the_directory(
    directory: RunDirectory, other_process: subprocess.Popen[bytes]
) -> None:
    claim_as(other_process, directory)
    directory.update(pid_started=directory.read()["pid_started"] - 1)
    directory.claim(resume=False)


def test_a_claim_of_the_parent_counts_for_its_ranks(directory: RunDirectory) -> None:
    run = directory.claim(resume=False)
    commit(directory, 1)
    code = (
        "import sys; from bigft.runtime.run_directory import RunDirectory;"
        "print(RunDirectory(sys.argv[1]).claim(resume=False)['run_id'])"
    )
    rank = subprocess.run(
        [sys.executable, "-c", code, str(directory.path)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert rank.stdout.strip() == run["run_id"]


@pytest.mark.parametrize(("num_checkpoints", "status"), [(0, "failed"), (1, "resumable")])
def test_a_run_whose_process_is_gone_is_seen_to_have_died(
    directory: RunDirectory,
    other_process: subprocess.Popen[bytes],
    num_checkpoints: int,
    status: str,
) -> None:
    claim_as(other_process, directory)
    for step in range(num_checkpoints):
        commit(directory, step)
    assert directory.observe()["status"] == "running"
    other_process.kill()
    other_process.wait()
    observed = directory.observe()
    assert observed["status"] == status
    assert observed["why"] == f"died: process {other_process.pid} is gone"


def test_a_run_of_another_host_is_believed(directory: RunDirectory) -> None:
    directory.claim(resume=False)
    directory.update(host="another", pid=1, pid_started=-1)
    assert directory.observe()["status"] == "running"


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
