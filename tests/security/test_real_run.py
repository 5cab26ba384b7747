"""What a real run leaves, shows and listens on."""

from __future__ import annotations

import shlex
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from security.conftest import CANARY, HOSTILE, SECRETS, Watched

from bigft.cli import main
from bigft.runtime.run_directory import RunDirectory

pytestmark = pytest.mark.distributed


def files_of(place: Path) -> Iterator[Path]:
    found = [path for path in place.rglob("*") if path.is_file() and not path.is_symlink()]
    assert found
    yield from found


def test_hostile_names_do_nothing_but_name(hostile_run: Watched) -> None:
    """Of the config, the model, the data, the run and its directory."""
    place = hostile_run.place
    assert hostile_run.code == 0, hostile_run.output.decode()
    assert [path for path in place.rglob("*") if path.name == "canary"] == []
    assert [path.name for path in (place / "runs").iterdir()] == [HOSTILE]
    assert (place / "runs" / HOSTILE / "model" / "model.safetensors").is_file()


def test_the_command_that_status_shows_is_safe_to_paste(
    hostile_run: Watched, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(hostile_run.place)
    directory = RunDirectory(Path("runs", HOSTILE))
    before = directory.run_file.read_bytes()
    try:
        directory.update(status="resumable")
        assert main(["status", str(directory.path)]) == 0
    finally:
        directory.run_file.write_bytes(before)
    shown = capsys.readouterr().out.partition("go on with")[2]
    assert shlex.split(shown)[3] == f"train.output_dir={directory.path}"


@pytest.mark.parametrize("run", ["hostile_run", "failed_run"])
def test_secrets_of_the_environment_appear_nowhere(
    run: str, request: pytest.FixtureRequest
) -> None:
    """Not in what is printed, in the arguments of a process, or in a file: a log, run.json, the
    metrics, a checkpoint."""
    watched: Watched = request.getfixturevalue(run)
    assert (watched.code == 0) == (run == "hostile_run"), watched.output.decode()
    assert CANARY not in watched.output
    assert watched.command_lines
    assert [line for line in watched.command_lines if CANARY in line] == []
    kept = [path for path in files_of(watched.place) if CANARY in path.read_bytes()]
    assert kept == []
    names = {path.name for path in files_of(watched.place)}
    assert {"run.json", "metrics.jsonl", "config.yaml", "COMMIT", "rank-00000.log"} <= names


@pytest.mark.parametrize("verb", ["env", "config"])
def test_verbs_that_print_settings_print_no_secret(
    verb: str,
    failed_run: Watched,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(failed_run.place)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    assert main([verb, *(["plain.yaml"] if verb == "config" else [])]) == 0
    printed = capsys.readouterr()
    assert CANARY.decode() not in printed.out + printed.err
    assert len(printed.out) > 100


def test_a_run_directory_is_private_and_nothing_in_it_is_the_worlds(hostile_run: Watched) -> None:
    """Its process had no umask at all."""
    directory = hostile_run.place / "runs" / HOSTILE
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    writable = [
        path.relative_to(directory)
        for path in directory.rglob("*")
        if not path.is_symlink() and path.stat().st_mode & stat.S_IWOTH
    ]
    assert writable == []


def test_ranks_of_one_node_listen_on_the_loopback_interface_alone(hostile_run: Watched) -> None:
    assert hostile_run.listening
    assert hostile_run.listening <= {"127.0.0.1", "::1"}
