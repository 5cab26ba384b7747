"""`bigft train`: arguments, and starts that fail early; what a run does is in tests/distributed."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import pytest

import bigft
from bigft.api import session
from bigft.api.session import End
from bigft.cli import main
from bigft.config.errors import BadInput, Problem
from bigft.runtime import environment, local_ranks
from bigft.runtime.launcher import Launch
from bigft.runtime.local_ranks import Ended
from bigft.runtime.lock import Lock
from bigft.runtime.run_directory import RunDirectory

REFUSED = "data.train_file=nothing.jsonl"
MISSING = "nothing.jsonl: no such file; did you mean train.jsonl?"


def test_a_refused_start_is_one_line_and_leaves_nothing(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(environment.PARENT, "1")  # notes are another process's
    assert main(["train", "config.yaml", REFUSED, "--nproc", "1"]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err) == ("", f"{MISSING}\n")
    assert not Path("out").exists()


def test_notes_are_told_by_the_first_process_only(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["train", "config.yaml", REFUSED, "--nproc", "2"]
    with monkeypatch.context() as rank:
        rank.setenv(environment.PARENT, "1")
        main(words)
    assert "note: " not in capsys.readouterr().err
    main(words)
    assert capsys.readouterr().err.count("note: ") == 1


@pytest.mark.parametrize(("nproc", "starts_ranks"), [("1", False), ("3", True)])
def test_nproc_says_how_many_ranks_start(
    place: Path, monkeypatch: pytest.MonkeyPatch, nproc: str, starts_ranks: bool
) -> None:
    seen: list[tuple[bool, Launch]] = []

    def run_rank(config: object, launch: Launch, started: float) -> End:
        seen.append((False, launch))
        return End("finished")

    def run_ranks(config: object, words: object, launch: Launch, started: float) -> End:
        seen.append((True, launch))
        return End("finished")

    monkeypatch.setattr(session, "run_rank", run_rank)
    monkeypatch.setattr(session, "run_ranks", run_ranks)
    assert main(["train", "config.yaml", "--nproc", nproc]) == 0
    ((started, launch),) = seen
    assert started == starts_ranks
    assert (launch.rank, launch.world_size, launch.local_world_size) == (0, int(nproc), int(nproc))


def test_ranks_are_started_in_a_shell_that_slurm_started(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NTASKS": "1"}
    for name, value in (step | {"SLURM_PTY_PORT": "40211"}).items():
        monkeypatch.setenv(name, value)
    seen: list[Launch] = []

    def run_ranks(config: object, words: object, launch: Launch, started: float) -> End:
        seen.append(launch)
        return End("finished")

    monkeypatch.setattr(session, "run_ranks", run_ranks)
    assert main(["train", "config.yaml", "--nproc", "2"]) == 0
    assert [(launch.kind, launch.world_size) for launch in seen] == [("environment", 2)]


def test_ranks_beside_those_of_a_launcher_are_refused_before_anything_is_read(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}.items():
        monkeypatch.setenv(name, value)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "1")
    assert main(["train", "config.yaml", REFUSED, "--nproc", "2"]) == 2
    (refused,) = capsys.readouterr().err.splitlines()
    assert refused.startswith("--nproc: 2, but by RANK this process is rank 0 of 1")


def test_a_launchers_rank_does_not_start_others(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
    for name, value in (variables | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}).items():
        monkeypatch.setenv(name, value)
    seen: list[Launch] = []

    def run_rank(config: object, launch: Launch, started: float) -> End:
        seen.append(launch)
        return End("finished")

    monkeypatch.setattr(session, "run_rank", run_rank)
    # as the deepspeed launcher calls every rank
    assert main(["train", "--local_rank=1", "config.yaml"]) == 0
    assert [(launch.rank, launch.world_size) for launch in seen] == [(1, 2)]


def test_half_a_launchers_environment_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "0")
    assert main(["train", "config.yaml"]) == 2
    missing = [line.split(": ")[1] for line in capsys.readouterr().err.splitlines()]
    assert missing == ["LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"]


def test_settings_that_count_at_process_start_are_in_place_before_anything_is_checked(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Anew(Exception):
        pass

    def execv(path: str, arguments: list[str]) -> None:
        raise Anew

    monkeypatch.setattr(os, "execv", execv)
    for name in (*environment.MALLOC_SETTINGS, environment.SETTLED):
        monkeypatch.delenv(name)
    with pytest.raises(Anew):
        main(["train", "config.yaml", REFUSED, "--nproc", "1"])


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing needs to be prepared."""
    import bigft.training.preflight

    run = SimpleNamespace(clock=date(2024, 7, 26))
    monkeypatch.setattr(bigft.training.preflight, "preflight", lambda config, launch: run)


def hand_over(directory: Path) -> None:
    """Another host's run holds the directory from here on."""
    lock = directory / "LOCK"
    lock.write_text(json.dumps(json.loads(lock.read_text()) | {"host": "another", "pid": 1}))


@pytest.mark.parametrize("nproc", ["1", "2"])
def test_a_signal_while_the_data_is_prepared_ends_the_run_so_that_it_can_go_on(
    place: Path, monkeypatch: pytest.MonkeyPatch, nproc: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import bigft.training.preflight

    def preflight(config: object, launch: object) -> None:
        os.kill(os.getpid(), signal.SIGUSR1)
        raise AssertionError("it went on")

    monkeypatch.setattr(bigft.training.preflight, "preflight", preflight)
    assert main(["train", "config.yaml", "--nproc", nproc]) == 75
    said = capsys.readouterr().err.splitlines()[-1]
    assert said == "bigft: stopped by SIGUSR1 while data was prepared; no step was done"
    run = RunDirectory("out").read()
    assert (run["status"], run["exit_code"]) == ("resumable", 75)
    assert run["why"] == "SIGUSR1 while data was prepared"
    assert not Path("out/LOCK").exists()


@pytest.mark.parametrize("nproc", ["1", "2"])
def test_a_stop_while_another_host_may_hold_the_directory_leaves_it_as_it_is(
    place: Path, monkeypatch: pytest.MonkeyPatch, nproc: str, prepared: None
) -> None:
    """Whether it does takes a minute to see; a signal ends that."""
    RunDirectory("out").claim(resume=False)
    hand_over(Path("out"))
    before = RunDirectory("out").read()
    monkeypatch.setattr(
        Lock, "_stays_silent", lambda self, seen: os.kill(os.getpid(), signal.SIGTERM)
    )
    assert main(["train", "config.yaml", "--nproc", nproc]) == 75
    assert RunDirectory("out").read() == before
    assert json.loads(Path("out/LOCK").read_text())["host"] == "another"


GONE = shutil.rmtree, "no run directory: cannot read run.json"
LOST = hand_over, "out was taken over by process 1 on another"
REFUSED_LATE = BadInput(Problem("model.dtype", "no"))


@pytest.mark.parametrize(
    ("lose", "why", "real", "reason"),
    [
        (*GONE, None, "finished"),
        (*LOST, None, "finished"),
        (*GONE, REFUSED_LATE, "model.dtype: no"),
        (*LOST, REFUSED_LATE, "model.dtype: no"),
        (*GONE, RuntimeError("step 13"), "RuntimeError: step 13"),
    ],
)
def test_an_end_that_cannot_be_recorded_is_told_with_its_reason_first(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    prepared: None,
    lose: Callable[[Path], None],
    why: str,
    real: Exception | None,
    reason: str,
) -> None:
    def train(*about: object) -> dict[str, int]:
        lose(Path("out"))
        if real is not None:
            raise real
        return {"step": 1, "train_runtime": 1}

    monkeypatch.setattr(session, "_train", train)
    if isinstance(real, RuntimeError):
        with pytest.raises(RuntimeError, match="step 13"):
            main(["train", "config.yaml", "--nproc", "1"])
    else:
        assert main(["train", "config.yaml", "--nproc", "1"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"bigft: {reason}; run.json does not say so: ")
    assert why in said


def test_a_parent_that_cannot_record_how_its_ranks_ended_says_so(
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    prepared: None,
) -> None:
    def run_ranks(*about: object) -> Ended:
        shutil.rmtree("out")
        return Ended(137, 1, "rank 1 ended first")

    monkeypatch.setattr(local_ranks, "run_ranks", run_ranks)
    assert main(["train", "config.yaml", "--nproc", "2"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("bigft: rank 1 ended first; run.json does not say so: out: no run dir")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--nproc", "0"], "argument --nproc: '0' is not a whole number above 0"),
        (["--nproc", "all"], "argument --nproc: 'all' is not a whole number above 0"),
        (["--resume"], "unrecognized arguments: --resume"),
        (["--npro=1"], "unrecognized arguments: --npro=1"),
    ],
)
def test_arguments_that_are_wrong(
    place: Path, capsys: pytest.CaptureFixture[str], words: list[str], error: str
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["train", "config.yaml", *words])
    assert exit_.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1] == f"bigft train: error: {error}"


def test_two_runs_of_one_process_have_a_clock_each(
    place: Path, monkeypatch: pytest.MonkeyPatch, prepared: None
) -> None:
    """What train.max_time counts from."""
    seen: list[float] = []

    def train(*about: object) -> dict[str, int]:
        seen.append(float(os.environ[session.STARTED]))
        return {"step": 1, "train_runtime": 1}

    monkeypatch.setattr(session, "_train", train)
    for output in ("one", "two"):
        words = ["train", "config.yaml", "--nproc", "1", f"train.output_dir={output}"]
        assert main(words) == 0
    assert seen[0] < seen[1]


def test_a_loss_that_explodes_is_told_in_the_last_line_and_in_status(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = {"max_steps": 9, "per_device_train_batch_size": 1}
    train = {**short, "logging_steps": 1, "save_strategy": "no"}
    over = {"data.test_file": None, "optim.learning_rate": 5, "train": train}
    bigft.train("config.yaml", over, nproc=1)
    lines = capsys.readouterr().out.splitlines()
    assert any("optim.learning_rate 5 is far too high" in line for line in lines)
    last, _, warning = lines[-1].partition("; ")
    assert last.startswith("finished at step 9 after ")
    assert warning.startswith("the loss ")
    assert warning.endswith("lower optim.learning_rate")
    assert main(["status", "out"]) == 0
    assert warning in capsys.readouterr().out
