"""LOCK: who gets it, who does not, and that there is never more than one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from waiting import PATIENCE, wait_until

from bigft.config.errors import BadInput
from bigft.runtime import failpoints, lock
from bigft.runtime.environment import PARENT
from bigft.runtime.lock import Holder, Lock

GONE: dict[str, Any] = {"pid_started": -1}  # no process ever started then
ELSEWHERE: dict[str, Any] = {"host": "another"}
# Of a container on this machine, whose ids are others: nothing can be told from them.
IN_A_CONTAINER: dict[str, Any] = {"space": "pid:[1]", **GONE}
ACQUIRE = """
import sys, pathlib
from bigft.runtime.lock import Lock
ours = Lock(pathlib.Path(sys.argv[1]))
_, is_new = ours.acquire()
ours.release()
print(is_new, ours.is_ours())
"""


@pytest.fixture(autouse=True)
def outside_of_slurm(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(autouse=True)
def short_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "SILENCE_SECONDS", 0.3)
    monkeypatch.setattr(lock, "LOOK_SECONDS", 0.02)


def held(directory: Path, name: str = "LOCK", **facts: Any) -> Holder:
    """A LOCK as another process left it; by default as init would have."""
    holder = Holder.this_process()
    init = replace(holder, pid=1, pid_started=lock._start_of(1))
    other = Holder(**{**asdict(init), **facts})
    (directory / name).write_text(json.dumps(asdict(other)))
    return other


def files(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def test_lock_names_who_holds_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    mine = Lock(tmp_path)
    mine.acquire()
    content = json.loads((tmp_path / "LOCK").read_text())
    assert (content["host"], content["pid"]) == (os.uname().nodename, os.getpid())
    assert (content["job_id"], content["restart_count"]) == ("77", 2)
    assert str(mine.holder()).endswith("(Slurm job 77, restart 2)")
    assert files(tmp_path) == {"LOCK"}
    assert mine.is_ours()
    mine.release()
    assert files(tmp_path) == set()


def test_a_living_process_of_this_host_is_not_succeeded(tmp_path: Path) -> None:
    holder = held(tmp_path)
    for refused in (Lock(tmp_path).check, Lock(tmp_path).acquire):
        with pytest.raises(BadInput, match=rf"is held by process 1 on {holder.host}, which is"):
            refused()
    assert Lock(tmp_path).holder() == holder
    assert files(tmp_path) == {"LOCK"}


def test_a_dead_process_of_this_host_is_succeeded_at_once(tmp_path: Path) -> None:
    held(tmp_path, **GONE)
    before = (tmp_path / "LOCK").read_bytes()
    Lock(tmp_path).check()
    assert (tmp_path / "LOCK").read_bytes() == before, "check is not to write"
    mine = Lock(tmp_path)
    assert mine.acquire() == (mine.holder(), True)
    assert mine.is_ours()
    assert files(tmp_path) == {"LOCK"}


@pytest.mark.parametrize("where", [{}, ELSEWHERE, GONE], ids=["here", "elsewhere", "gone"])
def test_a_requeued_job_succeeds_its_earlier_start_and_never_a_later_one(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    where: dict[str, Any],
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    held(tmp_path, job_id="77", restart_count=1, **where)
    with pytest.raises(BadInput, match=r"Slurm job 77, restart 1"):
        Lock(tmp_path).acquire()  # restart 0
    monkeypatch.setenv("SLURM_RESTART_COUNT", "2")
    mine = Lock(tmp_path)
    mine.acquire()
    assert mine.is_ours()
    assert "waiting" not in capsys.readouterr().err
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert not Lock(tmp_path).is_ours(), "asked by a rank of the earlier start"


@pytest.mark.parametrize(("job_id", "restart_count"), [("76", 0), ("77", 5), ("", 0)])
def test_another_run_is_not_an_earlier_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job_id: str, restart_count: int
) -> None:
    held(tmp_path, job_id=job_id, restart_count=restart_count)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "5")
    with pytest.raises(BadInput, match="which is running"):
        Lock(tmp_path).acquire()


@pytest.mark.parametrize("where", [ELSEWHERE, IN_A_CONTAINER], ids=["host", "container"])
def test_a_silent_holder_of_another_host_is_watched_and_then_succeeded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], where: dict[str, Any]
) -> None:
    held(tmp_path, **where)
    Lock(tmp_path).check()  # it cannot know
    started = time.monotonic()
    mine = Lock(tmp_path)
    mine.acquire()
    assert time.monotonic() - started >= lock.SILENCE_SECONDS
    assert mine.is_ours()
    assert "; waiting up to " in capsys.readouterr().err


@pytest.mark.parametrize("where", [ELSEWHERE, IN_A_CONTAINER], ids=["host", "container"])
def test_a_beating_holder_of_another_host_is_not_succeeded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: dict[str, Any]
) -> None:
    held(tmp_path, **where)
    monkeypatch.setattr(lock, "SILENCE_SECONDS", 2 * PATIENCE)
    real_sleep = time.sleep

    def sleep(seconds: float) -> None:
        real_sleep(seconds)
        os.utime(tmp_path / "LOCK")

    monkeypatch.setattr(time, "sleep", sleep)
    started = time.monotonic()
    with pytest.raises(BadInput, match=r"held by process 1 on .*, which is running"):
        Lock(tmp_path).acquire()
    assert time.monotonic() - started < PATIENCE, "one sign of life is enough"


def test_a_watched_holder_that_lets_go_is_waited_for_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held(tmp_path, **ELSEWHERE)
    monkeypatch.setattr(lock, "SILENCE_SECONDS", 2 * PATIENCE)
    monkeypatch.setattr(time, "sleep", lambda _: (tmp_path / "LOCK").unlink())
    started = time.monotonic()
    Lock(tmp_path).acquire()
    assert time.monotonic() - started < PATIENCE


def test_a_holder_gives_signs_of_life_as_long_as_it_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.01)
    mine = Lock(tmp_path)
    mine.acquire()
    file = tmp_path / "LOCK"
    beats: set[int] = set()
    wait_until(lambda: beats.add(file.stat().st_mtime_ns) or len(beats) == 4, every=0.005)
    mine.release()


def test_who_was_succeeded_knows_it_and_leaves_the_successor_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.01)
    late = Lock(tmp_path)
    late.acquire()
    (tmp_path / "successor").write_text("")
    successor = held(tmp_path, "successor", **ELSEWHERE)
    os.replace(tmp_path / "successor", tmp_path / "LOCK")
    assert not late.is_ours()
    beat = (tmp_path / "LOCK").stat().st_mtime_ns
    time.sleep(0.1)
    assert (tmp_path / "LOCK").stat().st_mtime_ns == beat, "a heartbeat for another's LOCK"
    late.release()
    assert late.holder() == successor
    assert files(tmp_path) == {"LOCK"}


def test_a_removed_lock_is_nobodys(tmp_path: Path) -> None:
    mine = Lock(tmp_path)
    mine.acquire()
    (tmp_path / "LOCK").unlink()
    assert not mine.is_ours()
    mine.release()
    assert files(tmp_path) == set()


def test_what_a_parent_holds_its_ranks_hold_and_cannot_release(tmp_path: Path) -> None:
    parent = Lock(tmp_path)
    parent.acquire()
    rank = subprocess.run(
        [sys.executable, "-c", ACQUIRE, str(tmp_path)],
        env={**os.environ, PARENT: str(os.getpid())},
        capture_output=True,
        text=True,
        check=True,
    )
    assert rank.stdout.split() == ["False", "True"]
    assert parent.is_ours()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": "x"}'])
def test_a_file_that_is_no_lock_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "LOCK").write_text(content)
    with pytest.raises(BadInput, match=r"LOCK: not the LOCK of a bigft run .*remove it"):
        Lock(tmp_path).acquire()


@pytest.mark.parametrize("fate", ["dies", "lives"])
def test_who_dies_while_taking_over_is_succeeded_in_turn(tmp_path: Path, fate: str) -> None:
    """Between its claim to succeed and the change of LOCK, which still names the one before."""
    first = held(tmp_path, **GONE)
    taker = held(tmp_path, f".LOCK-after-{first.token}", **(GONE if fate == "dies" else {}))
    mine = Lock(tmp_path)
    assert mine.holder() == taker
    if fate == "lives":
        with pytest.raises(BadInput, match="is held by process 1 on"):
            mine.acquire()
    else:
        mine.acquire()
        assert mine.is_ours()
        assert files(tmp_path) == {"LOCK"}


def test_a_process_killed_while_it_takes_over_leaves_no_one_locked_out(tmp_path: Path) -> None:
    held(tmp_path, **GONE)
    environ = {**os.environ, failpoints.VARIABLE: "lock.change=kill"}
    words = [sys.executable, "-c", ACQUIRE, str(tmp_path)]
    killed = subprocess.run(words, env=environ, check=False)
    assert killed.returncode == -9
    mine = Lock(tmp_path)
    mine.acquire()
    assert mine.is_ours()
    left = files(tmp_path) - {"LOCK"}
    assert len(left) <= 1, left  # the file it had written, of no meaning to anyone


# Each of `num_takers` processes tries once per round, all at the same moment.
RACE = """
import json, multiprocessing, pathlib, sys
from dataclasses import asdict, replace
from bigft.config.errors import BadInput
from bigft.runtime.lock import Holder, Lock

directory, num_takers, rounds = pathlib.Path(sys.argv[1]), 4, int(sys.argv[2])
PATIENCE = float(sys.argv[3])
dead = replace(Holder.this_process(), pid_started=-1)

def plant(round):
    if round % 3 == 0:
        return
    holder = replace(dead, token=f"dead-{round}")
    (directory / "LOCK").write_text(json.dumps(asdict(holder)))
    if round % 3 == 2:  # one that died while it took over
        taker = replace(dead, token=f"taker-{round}")
        (directory / f".LOCK-after-{holder.token}").write_text(json.dumps(asdict(taker)))

def take(meet, winners):
    for round in range(rounds):
        meet.wait(PATIENCE)
        lock = Lock(directory)
        try:
            assert lock.acquire()[1]
            winners.put((round, lock.is_ours()))
        except BadInput as refused:
            assert "is held by process" in str(refused), refused
        meet.wait(PATIENCE)
        lock.release()
        meet.wait(PATIENCE)

if __name__ == "__main__":
    context = multiprocessing.get_context("fork")
    meet, winners = context.Barrier(num_takers + 1), context.SimpleQueue()
    takers = [
        context.Process(target=take, args=(meet, winners), daemon=True) for _ in range(num_takers)
    ]
    for taker in takers:
        taker.start()
    for round in range(rounds):
        plant(round)
        meet.wait(PATIENCE)
        meet.wait(PATIENCE)
        winner = winners.get()
        assert winner == (round, True), winner
        assert winners.empty(), f"two winners in round {round}"
        meet.wait(PATIENCE)
        left = [path.name for path in directory.iterdir()]
        assert not left, (round, left)
    for taker in takers:
        taker.join()
    print("one winner in each round")
"""


def test_of_several_takers_exactly_one_wins(tmp_path: Path) -> None:
    race = subprocess.run(
        [sys.executable, "-c", RACE, str(tmp_path), "150", str(PATIENCE)],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert race.stdout == "one winner in each round\n", race.stderr[-3000:]
