"""`bigft job`: whether a job's start goes on, and whether there is another one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bigft.cli import REFUSAL, main
from bigft.cli.job import MAX_IDLE_STARTS
from bigft.config.exit_codes import EXIT_RESUMABLE
from bigft.config.load import load_config, resolved_yaml
from bigft.runtime.run_directory import RunDirectory

CONFIG = (
    "task: token-classification\nmodel: {model_name_or_path: model}\n"
    "data: {train_file: train.conll}\ntrain: {output_dir: out}\n"
)


@pytest.fixture(autouse=True)
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunDirectory:
    """That of config.yaml; not there yet."""
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(CONFIG)
    Path("refusal").touch()
    monkeypatch.setenv(REFUSAL, "refusal")
    in_job(monkeypatch, "7")
    return RunDirectory("out")


def in_job(monkeypatch: pytest.MonkeyPatch, number: str, restarts: int = 0) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", number)
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(restarts))


def trained(
    directory: RunDirectory, status: str = "resumable", resume: bool | str = True, **facts: Any
) -> None:
    """A start of this job that ended so."""
    directory.claim(resume=resume)
    directory.write_config(resolved_yaml(load_config("config.yaml", []).config))
    directory.update(status=status, **facts)
    directory.release()


def commit(directory: RunDirectory, step: int) -> None:
    path = directory.path / f"checkpoint-{step}"
    path.mkdir(parents=True)
    (path / "COMMIT").touch()


def begin(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    assert main(["job", "begin", "config.yaml", *words]) == 0
    return capsys.readouterr().out.splitlines()


def end(
    capsys: pytest.CaptureFixture[str], code: int = 75, signal: str = ""
) -> tuple[int, list[str]]:
    answer = main(["job", "end", "out", "--code", str(code), "--signal", signal])
    return answer, capsys.readouterr().out.splitlines()


# -- before training ------------------------------------------------------------------------------


def test_a_job_that_has_not_trained_yet_is_at_its_first_start(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert begin(capsys) == ["first", "out"]
    trained(directory)
    assert begin(capsys) == ["again", "out"]
    in_job(monkeypatch, "8")  # the next one of a chain
    assert begin(capsys) == ["first", "out"]


def test_outside_of_slurm_no_start_is_a_second_one(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("SLURM_JOB_ID")
    trained(directory)
    assert begin(capsys) == ["first", "out"]


@pytest.mark.parametrize("named", ["other/checkpoint-5", "out/checkpoint-5"])
def test_a_run_begins_with_the_named_checkpoint_until_it_has(
    named: str,
    directory: RunDirectory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = [f"train.resume_from_checkpoint={named}"]
    assert begin(capsys, *words) == ["named", "out"]
    trained(directory, "finished")  # without it
    assert begin(capsys, *words) == ["named", "out"]
    trained(directory, resume=named)
    assert begin(capsys, *words) == ["again", "out"]
    trained(directory)  # again
    in_job(monkeypatch, "8")
    assert begin(capsys, *words) == ["first", "out"]
    trained(directory, resume=False)
    assert begin(capsys, *words) == ["named", "out"]


def test_a_finished_run_is_finished_unless_the_config_asks_for_more(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(directory, "finished")
    in_job(monkeypatch, "8")
    assert begin(capsys) == begin(capsys, "train.resume_from_checkpoint=true")
    assert begin(capsys) == ["finished", "out"]
    assert begin(capsys, "train.num_train_epochs=9") == ["first", "out"]


def test_a_directory_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    name = "run's $(x)\nof mine"
    Path("config.yaml").write_text(CONFIG.replace("out}", json.dumps(name) + "}"))
    assert begin(capsys) == ["first", *name.splitlines()]


def test_what_is_refused_is_left_for_the_jobs_last_line() -> None:
    assert main(["job", "begin", "config.yaml", "train.sed=1", "train.zed=2"]) == 2
    told = (
        "command line: train.sed=1: unknown key; did you mean train.seed? (and 1 more: see above)"
    )
    assert Path("refusal").read_text() == told
    Path("refusal").unlink()
    assert main(["job", "begin", "config.yaml", "train.sed=1"]) == 2
    assert not Path("refusal").exists()  # on another host, or in a container


# -- after training -------------------------------------------------------------------------------


def test_a_finished_run_is_finished_whatever_the_launcher_says(
    directory: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(directory, "finished")
    assert end(capsys, 137) == (0, [])


def test_a_stopped_run_is_saved_if_there_is_a_checkpoint(
    directory: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(directory, why="stopped by SIGUSR1")
    assert end(capsys) == (EXIT_RESUMABLE, ["stopped", "stopped by SIGUSR1"])
    commit(directory, 3)
    assert end(capsys) == (EXIT_RESUMABLE, ["saved", "stopped by SIGUSR1"])


def test_a_run_that_died_without_a_word_goes_on(
    directory: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    commit(directory, 3)
    trained(directory, "running")
    code, (kept, why) = end(capsys, 137)
    assert (code, kept) == (EXIT_RESUMABLE, "saved")
    assert why.startswith("died: process ")


def test_a_failed_run_is_told_in_one_line(
    directory: RunDirectory, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(directory, "failed", why="RuntimeError: no luck\nat all")
    assert end(capsys, 1) == (1, ["RuntimeError: no luck"])


def test_starts_in_a_row_that_save_nothing_new_come_to_an_end(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in (3, 6):
        commit(directory, step)
        for start in range(MAX_IDLE_STARTS + 1):
            in_job(monkeypatch, "7", restarts=start)
            trained(directory, why="stopped by SIGUSR1")
            code, told = end(capsys)
            # The first of them has found a newer checkpoint than the start before it.
            assert code == (1 if start >= MAX_IDLE_STARTS - 1 else EXIT_RESUMABLE)
    assert told[0].startswith(f"{MAX_IDLE_STARTS + 1} starts in a row saved nothing new (stopped")
    commit(directory, 9)
    assert end(capsys) == (EXIT_RESUMABLE, ["saved", "stopped by SIGUSR1"])


@pytest.mark.parametrize(
    ("code", "signal", "answer"),
    [
        (75, "USR1", (EXIT_RESUMABLE, ["stopped", "SIGUSR1 before training began"])),
        (75, "", (EXIT_RESUMABLE, ["stopped", "a signal before training began"])),
        (137, "", (1, ["training ended with exit code 137 before it began: see above"])),
    ],
)
@pytest.mark.parametrize("others", [False, True])
def test_a_start_that_did_not_get_as_far_as_the_directory(
    directory: RunDirectory,
    code: int,
    signal: str,
    answer: tuple[int, list[str]],
    others: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The directory is not there yet, or as another start left it, a failed one, say."""
    if others:
        trained(directory, "failed", why="long ago")
        in_job(monkeypatch, "7", restarts=1)
    assert end(capsys, code, signal) == answer


def test_a_start_that_was_refused_is_not_started_again(
    directory: RunDirectory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Slurm kills the ranks beside the one that refuses: the exit code may be any of theirs."""
    commit(directory, 3)
    trained(directory, "running")
    in_job(monkeypatch, "8")
    Path("refusal").write_text("train.output_dir: out is held by process 4 on n4")
    for code in (2, 75, 137):
        assert end(capsys, code, "USR1") == (2, [Path("refusal").read_text()])
