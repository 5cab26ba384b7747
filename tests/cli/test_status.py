"""`bigft status`: every way in which a run can stand."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import time
from pathlib import Path
from typing import Any

import pytest

from bigft.cli import status
from bigft.config.errors import BadInput
from bigft.runtime.events import MetricsFile
from bigft.runtime.run_directory import RunDirectory


def show(*arguments: str) -> None:
    parser = argparse.ArgumentParser()
    status.add_arguments(parser)
    assert status.run(parser.parse_args(arguments)) == 0


@pytest.fixture
def directory(tmp_path: Path) -> RunDirectory:
    directory = RunDirectory(tmp_path / "run")
    directory.claim(resume=False, world_size=2)
    metrics = MetricsFile(directory.metrics_file)
    metrics({"event": "start", "time": time.time(), "total_steps": 600})
    metrics({"event": "log", "time": time.time(), "step": 120, "epoch": 0.6, "loss": 1.23456})
    metrics({"event": "note", "time": time.time() - 3000, "text": "a note has no step"})
    return directory


def commit(directory: RunDirectory, step: int) -> None:
    path = directory.path / f"checkpoint-{step}"
    path.mkdir()
    (path / "COMMIT").touch()


def rows(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """The table that `bigft status` prints, by the first column."""
    show(str(path))
    title, *lines = capsys.readouterr().out.splitlines()
    assert title == str(path)
    width = max(line.index("  ", 2) for line in lines if "  " in line[2:])
    return {line[:width].strip(): line[width:].strip() for line in lines}


def as_json(path: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    show(str(path), "--json")
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


def test_a_running_run_tells_how_far_it_is_and_who_runs_it(
    directory: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    table = rows(directory.path, capsys)
    assert table["status"] == "running"
    assert table["step"] == "120/600 (20%)"
    assert table["loss"] == "1.235"
    assert table["process"].startswith(f"{os.getpid()} on ")
    assert table["last event"].startswith("50")


def test_a_run_that_died_is_resumable_only_with_a_checkpoint(
    directory: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    directory.release()
    assert rows(directory.path, capsys)["status"] == f"failed (died: process {os.getpid()} is gone)"
    commit(directory, 100)
    table = rows(directory.path, capsys)
    assert table["status"] == f"resumable (died: process {os.getpid()} is gone)"
    assert table["latest checkpoint"] == str(directory.path / "checkpoint-100")
    assert table["go on with"] == (
        f"bigft train {directory.path}/config.yaml train.output_dir={directory.path} "
        "train.resume_from_checkpoint=true --nproc 2"  # as many ranks as it had
    )


def test_a_run_that_branched_off_goes_on_before_it_has_a_checkpoint(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    branch = RunDirectory(tmp_path / "branch")
    branch.claim(resume=tmp_path / "run" / "checkpoint-3")
    branch.release()
    table = rows(branch.path, capsys)
    assert table["status"].startswith("resumable (died")
    assert table["branched from"] == str(tmp_path / "run" / "checkpoint-3")
    assert table["go on with"].endswith("train.resume_from_checkpoint=true")


def test_a_failed_run_tells_why(
    directory: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    directory.update(status="failed", why="loss is NaN at step 121", exit_code=1)
    assert rows(directory.path, capsys)["status"] == "failed (loss is NaN at step 121)"
    assert as_json(directory.path, capsys)["exit_code"] == 1


def test_a_finished_run_shows_its_final_metrics(
    directory: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    directory.update(status="finished")
    directory.write_results({"test_f1": 0.4391})
    table = rows(directory.path, capsys)
    assert table["status"] == "finished"
    assert table["test_f1"] == "0.4391"


def test_after_a_resume_the_step_is_the_one_gone_back_to(
    directory: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    MetricsFile(directory.metrics_file)({"event": "resume", "time": time.time(), "step": 100})
    answer = as_json(directory.path, capsys)
    assert (answer["step"], answer["loss"]) == (100, None)


def test_a_run_that_was_given_up_names_the_checkpoint_to_go_on_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = RunDirectory(tmp_path / "it's a run")
    directory.create()
    commit(directory, 100)
    for _ in range(3):
        directory.claim(resume=True)
        directory.crashed("RuntimeError: step 113")
        directory.release()
    table = rows(directory.path, capsys)
    assert table["status"] == "failed (RuntimeError: step 113)"
    assert table["crashes"] == "3 in a row without a newer checkpoint"
    words = shlex.split(table["go on with"])
    assert words == [
        *("bigft", "train", f"{directory.path}/config.yaml"),
        f"train.output_dir={directory.path}",
        f"train.resume_from_checkpoint={directory.path}/checkpoint-100",
    ]


def test_sick_steps_and_saves_that_failed_are_told(
    directory: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = MetricsFile(directory.metrics_file)
    for step in (7, 8, 7):  # 7 twice: it was done again
        metrics({"event": "nonfinite", "time": time.time(), "step": step, "what": "loss"})
    metrics({"event": "save_failed", "time": time.time(), "step": 100, "why": "disk full"})
    table = rows(directory.path, capsys)
    assert table["nonfinite steps"] == "2 (of late: 7, 8)"
    assert table["failed saves"] == "1 (of late: 100)"


def test_a_loss_that_rose_is_told(
    directory: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = MetricsFile(directory.metrics_file)
    for step, loss in ((130, 1.0), (140, 7273.0)):
        metrics({"event": "log", "time": 0.0, "step": step, "loss": loss, "num_targets": 9})
    warning = "the loss rose from 1 to 7,273: lower optim.learning_rate"
    assert rows(directory.path, capsys)["warning"] == warning
    assert as_json(directory.path, capsys)["warning"] == warning


@pytest.mark.parametrize(
    ("status_is", "code"), [("finished", 0), ("resumable", 75), ("failed", 1), ("running", 4)]
)
def test_scripts_get_the_status_as_exit_code(
    directory: RunDirectory, status_is: str, code: int
) -> None:
    directory.update(status=status_is)
    words = [str(directory.path), "--json", "--exit-code"]
    parser = argparse.ArgumentParser()
    status.add_arguments(parser)
    assert status.run(parser.parse_args(words)) == code


def test_scripts_get_the_facts_without_wording(
    directory: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = as_json(directory.path, capsys)
    del answer["last_event"], answer["run_id"], answer["host"]
    assert answer == {
        "path": str(directory.path),
        "status": "running",
        "why": "",
        "exit_code": None,
        "crashes": 0,
        "pid": os.getpid(),
        "job_id": "",
        "restart_count": 0,
        "world_size": 2,
        "step": 120,
        "total_steps": 600,
        "epoch": 0.6,
        "loss": 1.23456,
        "nonfinite_steps": [],
        "failed_saves": [],
        "warning": None,
        "branched_from": None,
        "latest_checkpoint": None,
        "best_checkpoint": None,
        "results": {},
        "go_on": None,
    }


def test_a_run_that_has_logged_nothing_yet_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = RunDirectory(tmp_path)
    directory.claim(resume=False)
    assert rows(tmp_path, capsys)["step"] == "0"


def test_what_is_no_run_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"no run directory: cannot read run\.json"):
        show(str(tmp_path / "nothing"))
    RunDirectory(tmp_path).claim(resume=False)
    with pytest.raises(BadInput, match=r"no run directory: cannot read run\.json \(Not a direct"):
        show(str(tmp_path / "run.json"))


def test_paths_are_of_one_kind_and_nothing_is_said_twice(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    commit(directory, 100)
    (directory.path / "best").symlink_to("checkpoint-100")
    directory.write_results({"step": 120, "epoch": 0.6, "eval_f1": 0.5})
    monkeypatch.chdir(directory.path.parent)
    seen = rows(Path("run"), capsys)
    assert seen["best checkpoint"] == seen["latest checkpoint"] == "run/checkpoint-100"
    assert (seen["step"], seen["epoch"], seen["eval_f1"]) == ("120/600 (20%)", "0.6", "0.5")
    show("run")
    lines = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert lines.count("step") == lines.count("epoch") == 1
