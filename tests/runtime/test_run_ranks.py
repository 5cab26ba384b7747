"""Ranks on one machine, started and ended by `run_ranks`: real processes, no torch; each test with
new processes of Python and with forks of a server."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from waiting import PATIENCE, wait_until

from bigft.runtime.local_ranks import Ended
from bigft.runtime.signals import FORWARDED_SIGNALS

# Stands in for the package: `python -m bigft CODE` runs CODE with these names.
RANK_PROGRAM = """
import json, os, signal, sys, time
def ready():
    open(f"ready-{os.getpid()}", "w").close()
def main(argv):
    exec(argv[0], {**globals(), "rank": int(os.environ["RANK"])})
    return 0
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""
SLOW_TO_SET_GROUPS = """
import os, time
set_group = os.setpgid
os.setpgid = lambda pid, group: (pid and time.sleep(1), set_group(pid, group))
"""
REPOSITORY = Path(__file__).resolve().parents[2]


def environ(**more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "PYTHONPATH": str(REPOSITORY), **more}


# Source too, since a test has it run by a process of its own.
RUN = {
    "spawned": """
from bigft.runtime import local_ranks
from bigft.runtime.environment import environment_of_ranks
def run_ranks(argv, nproc, environ, log_file=None):
    return local_ranks.run_ranks(argv, nproc, environment_of_ranks(nproc, environ), log_file)
""",
    "forked": """
from bigft.runtime import local_ranks
from bigft.runtime.environment import environment_of_ranks
from bigft.runtime.fork_server import ForkServer
def run_ranks(argv, nproc, environ, log_file=None):
    environ = environment_of_ranks(nproc, environ)
    with ForkServer("forked", [], environ) as server:
        return local_ranks.run_ranks(argv, nproc, environ, log_file, server)
""",
}
FILES = {"spawned": "bigft.py", "forked": "forked.py"}
RunRanks = Callable[..., Ended]


@pytest.fixture(params=RUN)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(autouse=True)
def stand_in(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / FILES[kind]).write_text(RANK_PROGRAM)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run_ranks(kind: str) -> RunRanks:
    names: dict[str, Any] = {}
    exec(RUN[kind], names)
    run: RunRanks = names["run_ranks"]
    return run


def ready_pids(folder: Path) -> list[int]:
    return [int(path.name.removeprefix("ready-")) for path in folder.glob("ready-*")]


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_every_rank_gets_its_place_and_its_settings(run_ranks: RunRanks, stand_in: Path) -> None:
    code = "json.dump(dict(os.environ), open(f'env-{rank}', 'w'))"
    assert run_ranks([code], 2, environ(MALLOC_TOP_PAD_="7")) == Ended()
    ranks = [json.loads((stand_in / f"env-{rank}").read_text()) for rank in range(2)]
    assert [rank["RANK"] for rank in ranks] == ["0", "1"]
    assert [rank["LOCAL_RANK"] for rank in ranks] == ["0", "1"]
    assert {rank["WORLD_SIZE"] for rank in ranks} == {"2"}
    assert ranks[0]["MASTER_PORT"] == ranks[1]["MASTER_PORT"]
    cores = len(os.sched_getaffinity(0))
    assert ranks[0]["OMP_NUM_THREADS"] == str(max(1, cores // 2))
    assert ranks[0]["TOKENIZERS_PARALLELISM"] == "false"
    assert ranks[0]["MALLOC_MMAP_THRESHOLD_"] == "1073741824"
    assert ranks[0]["MALLOC_TOP_PAD_"] == "7"


def test_threads_that_the_user_chose_stay(run_ranks: RunRanks, stand_in: Path) -> None:
    code = "open('threads', 'w').write(os.environ['OMP_NUM_THREADS'])"
    run_ranks([code], 1, environ(OMP_NUM_THREADS="17"))
    assert (stand_in / "threads").read_text() == "17"


@pytest.mark.parametrize(
    ("end", "code", "how"),
    [
        ("sys.exit(7)", 7, "exit code 7"),
        ("os.kill(os.getpid(), signal.SIGKILL)", 128 + 9, "SIGKILL"),
    ],
)
def test_the_first_failure_is_the_result_and_is_named(
    run_ranks: RunRanks, end: str, code: int, how: str, capfd: pytest.CaptureFixture[str]
) -> None:
    other = (
        "signal.signal(15, lambda *_: sys.exit(open('told', 'w').close()));"
        "open('up', 'w'); time.sleep(1000)"
    )
    first = f"[time.sleep(0.01) for _ in iter(lambda: os.path.exists('up'), True)]; {end}"
    program = f"exec({first!r} if rank == 1 else {other!r})"
    why = f"rank 1 ended first, by {how}; its log: 1.log"
    ended = run_ranks([program], 2, environ(), lambda rank: Path(f"{rank}.log"))
    assert ended == Ended(code, 1, why)
    assert Path("told").exists(), "the other one got no SIGTERM"
    assert f"bigft: {why}\n" in capfd.readouterr().err


def test_ranks_that_stop_as_asked_are_no_failure(
    run_ranks: RunRanks, capfd: pytest.CaptureFixture[str]
) -> None:
    ended = run_ranks(["sys.exit(75)"], 2, environ(), lambda rank: Path(f"{rank}.log"))
    assert (ended.code, ended.why) == (75, "")
    assert "ended first" not in capfd.readouterr().err


def test_a_rank_that_ignores_sigterm_is_killed_with_its_workers(
    run_ranks: RunRanks, stand_in: Path
) -> None:
    """As one that hangs in a collective with the rank that died."""
    stubborn = "signal.signal(15, signal.SIG_IGN); os.fork(); ready(); time.sleep(1000)"
    failing = (
        "[time.sleep(0.01) for _ in iter(lambda: len(os.listdir('.')) > 2, True)]; sys.exit(4)"
    )
    began = time.monotonic()
    ended = run_ranks([f"exec({failing!r} if rank == 1 else {stubborn!r})"], 2, environ())
    assert ended.code == 4
    assert time.monotonic() - began < 1000, "it was waited for"
    rank_and_worker = ready_pids(stand_in)
    assert len(rank_and_worker) == 2
    wait_until(lambda: not any(map(alive, rank_and_worker)))


def test_the_workers_of_a_rank_that_died_die_with_it(run_ranks: RunRanks, stand_in: Path) -> None:
    """They are no children of ours, and nobody else would end them."""
    dying = (
        "os.fork() or (ready(), time.sleep(1000)); ready(); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert run_ranks([dying], 1, environ()).code == 128 + 9
    wait_until(lambda: not any(map(alive, ready_pids(stand_in))))


def test_a_worker_of_a_rank_s_first_moment_is_of_its_group(
    run_ranks: RunRanks, kind: str, stand_in: Path
) -> None:
    """Or it would outlive the rank: the group is what is killed."""
    if kind == "forked":  # the process that forks the rank is slow to go on
        (stand_in / "forked.py").write_text(SLOW_TO_SET_GROUPS + RANK_PROGRAM)
    code = "os.fork() or (open('group', 'w').write(str(os.getpgrp())), ready(), os._exit(0));"
    code += "os.wait(); open('rank', 'w').write(str(os.getpid()))"
    assert run_ranks([code], 1, environ()) == Ended()
    assert (stand_in / "group").read_text() == (stand_in / "rank").read_text()


@pytest.mark.parametrize("number", FORWARDED_SIGNALS, ids=lambda number: number.name)
def test_a_signal_reaches_every_rank_once(
    run_ranks: RunRanks, stand_in: Path, number: signal.Signals
) -> None:
    code = f"""
got = []
signal.signal({int(number)}, lambda n, frame: got.append(n))
ready()
while not got: time.sleep(0.01)
time.sleep(0.2)
sys.exit(0 if got == [{int(number)}] else 1)
"""

    def send() -> None:
        wait_until(lambda: len(ready_pids(stand_in)) == 2)
        os.kill(os.getpid(), number)

    before = signal.getsignal(number)
    thread = threading.Thread(target=send)
    thread.start()
    assert run_ranks([code], 2, environ()) == Ended()
    thread.join()
    assert signal.getsignal(number) is before


def test_of_signals_that_come_together_none_is_lost(run_ranks: RunRanks, stand_in: Path) -> None:
    """Each is one that Python hands to its main thread, which may be waiting."""
    code = (
        "got = []\n"
        "for number in (signal.SIGUSR1, signal.SIGTERM):\n"
        "    signal.signal(number, lambda n, frame: got.append(n))\n"
        "ready()\n"
        "while len(got) < 2: time.sleep(0.01)\n"
    )

    def both() -> None:
        wait_until(lambda: len(ready_pids(stand_in)) == 2)
        time.sleep(0.3)  # now the parent waits
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)

    for _ in range(5):
        for ready in stand_in.glob("ready-*"):
            ready.unlink()
        sender = threading.Thread(target=both)
        sender.start()
        assert run_ranks([code], 2, environ()) == Ended()
        sender.join()


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)],
)
def test_a_stop_that_comes_while_ranks_start_is_no_failure(
    run_ranks: RunRanks, stand_in: Path, number: signal.Signals, code: int
) -> None:
    """They do not handle it yet, and die of it."""

    def ask() -> None:
        wait_until(lambda: len(ready_pids(stand_in)) == 2)
        os.kill(os.getpid(), number)

    threading.Thread(target=ask).start()
    starting = "signal.signal(signal.SIGINT, signal.SIG_DFL); ready(); time.sleep(1000)"
    ended = run_ranks([starting], 2, environ())
    assert (ended.code, ended.why) == (code, "")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
@pytest.mark.parametrize("kind", ["forked"], indirect=True)
def test_a_stop_ends_the_wait_for_a_server_that_never_loads(
    run_ranks: RunRanks, stand_in: Path, number: signal.Signals, code: int
) -> None:
    (stand_in / "forked.py").write_text("open('loading', 'w'); import time; time.sleep(1000)")

    def interrupt() -> None:
        wait_until((stand_in / "loading").exists)
        os.kill(os.getpid(), number)

    threading.Thread(target=interrupt).start()
    ended = run_ranks([], 2, environ())
    assert (ended.code, ended.why) == (code, "")


def test_ranks_that_ctrl_c_does_not_reach_are_ended_all_the_same(
    run_ranks: RunRanks, stand_in: Path
) -> None:
    """One fails since another one left; one is in a call that never returns to Python."""
    stubborn = "signal.signal(signal.SIGINT, signal.SIG_IGN); ready(); time.sleep(60)"
    failing = (
        "signal.signal(signal.SIGINT, lambda *_: sys.exit('connection closed by peer'));"
        "ready(); time.sleep(60)"
    )

    def ask() -> None:
        wait_until(lambda: len(ready_pids(stand_in)) == 2)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=ask).start()
    ended = run_ranks([f"exec({failing!r} if rank == 1 else {stubborn!r})"], 2, environ())
    assert (ended.code, ended.why) == (130, "")
    assert not any(map(alive, ready_pids(stand_in)))


def test_the_terminal_is_rank_zeros_and_the_others_write_their_logs(
    run_ranks: RunRanks, stand_in: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (stand_in / "1.log").write_text("before\n")
    code = "print('out of', rank); sys.stdout.flush(); print('err of', rank, file=sys.stderr)"
    run_ranks([code], 2, environ(), lambda rank: stand_in / f"{rank}.log")
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("out of 0\n", "err of 0\n")
    assert (stand_in / "1.log").read_text() == "before\nout of 1\nerr of 1\n"


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGHUP], ids=lambda n: n.name)
def test_no_rank_outlives_the_parent(kind: str, stand_in: Path, number: signal.Signals) -> None:
    code = "signal.signal(15, signal.SIG_IGN); ready(); time.sleep(1000)"
    (stand_in / "parent.py").write_text(
        f"import sys; sys.path[0] = {str(REPOSITORY)!r}\n"
        f"{RUN[kind]}"
        f"run_ranks([{code!r}], 2, {environ()!r})\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "parent.py"],
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # nohup ignores it
    )
    try:
        wait_until(lambda: len(ready_pids(stand_in)) == 2)
        parent.send_signal(number)
        parent.wait(PATIENCE)
    finally:
        parent.kill()
    wait_until(lambda: not any(map(alive, ready_pids(stand_in))))
