"""Ranks find each other, and one that waits for the others can be stopped."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from distributed.conftest import config_for, tiny_bert, write_data
from distributed.ranks import _context
from torch.distributed import HashStore, TCPStore  # type: ignore[attr-defined]
from waiting import PATIENCE, wait_until

from bigft.config.exit_codes import EXIT_RESUMABLE
from bigft.runtime.launcher import Launch, free_port
from bigft.runtime.rendezvous import AGENT_LISTENS, gather, meet, reach
from bigft.runtime.run_directory import RunDirectory
from bigft.runtime.signals import STOP_SIGNALS, Stopped, StopRequest

__all__ = ["config_for", "tiny_bert", "write_data"]

DIES_ONCE = """\
import os, pathlib, sys
from bigft.runtime import launcher
from bigft.runtime.process_group import join, leave, meet
from bigft.runtime.rendezvous import AGENT_LISTENS

assert os.environ[AGENT_LISTENS] == "True"
launch = launcher.detect(os.environ)
world = join(launch, 60, meet(launch, 60))
world.store.clone().set(f"of rank {world.rank}", str(world.rank))
assert int(world.store.get(f"of rank {1 - world.rank}")) == 1 - world.rank
died = pathlib.Path(sys.argv[1])
if world.rank == 1 and not died.exists():
    died.touch()
    os._exit(3)
assert world.sum([world.rank + 1]) == [3.0]
leave()
"""


def launch_of(rank: int, size: int, port: int) -> Launch:
    return Launch(rank, rank, size, size, "127.0.0.1", port, "environment")


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_ends_the_waiting_for_others(rank: int, number: signal.Signals) -> None:
    before = {taken: signal.getsignal(taken) for taken in STOP_SIGNALS}
    stop = StopRequest()
    stop.install()
    try:
        threading.Timer(0.5, os.kill, (os.getpid(), number)).start()
        with pytest.raises(Stopped, match=number.name), stop.raising():
            meet(launch_of(rank, 2, free_port()), PATIENCE)  # at whose end is a TimeoutError
    finally:
        for taken, handler in before.items():
            signal.signal(taken, handler)


@pytest.mark.distributed
def test_a_run_whose_first_rank_waits_alone_stops_as_asked(
    config_for: Callable[..., dict[str, Any]], write_data: Callable[..., Path], tmp_path: Path
) -> None:
    config = config_for("run", write_data([3, 2, 4, 1]))
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps(config))  # JSON is YAML
    port = free_port()
    place = Launch.local(2, 0, port).environment()
    environment = os.environ | place | {"DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "bigft", "train", str(file)]
    with (tmp_path / "output").open("wb") as output:
        rank = subprocess.Popen(command, env=environment, stdout=output, stderr=output)
    try:
        reach("127.0.0.1", port, PATIENCE)
        rank.send_signal(signal.SIGTERM)
        # Unasked it would wait for rank 1 as long as parallel.ddp_timeout, half an hour.
        assert rank.wait(PATIENCE) == EXIT_RESUMABLE, (tmp_path / "output").read_text()
    finally:
        rank.kill()
        rank.wait()
    directory = RunDirectory(config["train"]["output_dir"])
    run = directory.read()
    assert (run["status"], run["why"]) == ("resumable", "stopped by SIGTERM while ranks met")
    assert run["crashes"] == 0
    assert not (directory.path / "LOCK").exists()


@pytest.fixture
def agents_store(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The store of torchrun's agent, in which every rank is a guest."""
    monkeypatch.setenv(AGENT_LISTENS, "True")
    return TCPStore("127.0.0.1", 0, None, True, wait_for_workers=False)


def test_ranks_that_do_not_come_are_named(agents_store: Any) -> None:
    port = agents_store.port
    with ThreadPoolExecutor() as threads:
        waiting = [threads.submit(meet, launch_of(rank, 4, port), 1) for rank in (0, 2)]
    said = f"rank 1 and 3 of 4 did not come to 127.0.0.1:{port} within 1 s"
    for rank in waiting:
        error = rank.exception()
        assert isinstance(error, TimeoutError)
        assert str(error) == said


def test_a_store_that_goes_while_ranks_wait_is_told() -> None:
    """As where the first rank is stopped and the others are not."""
    port = free_port()
    with _context.Pool(1) as first, ThreadPoolExecutor() as threads:
        first.apply_async(meet, [launch_of(0, 3, port), PATIENCE])
        reach("127.0.0.1", port, PATIENCE)
        store = TCPStore("127.0.0.1", port, None, False)
        second = threads.submit(meet, launch_of(1, 3, port), PATIENCE)
        wait_until(lambda: store.check(["token/1"]))  # it has come, and waits for rank 2
        first.terminate()
        error = second.exception(PATIENCE)
    assert isinstance(error, ConnectionError)
    assert str(error) == f"the store at 127.0.0.1:{port} went before all ranks had come"


def test_a_first_rank_that_does_not_listen_is_named_by_its_address() -> None:
    port = free_port()
    with pytest.raises(TimeoutError, match=rf"^cannot reach 127.0.0.1:{port} \(Connection refused"):
        meet(launch_of(1, 2, port), 0.2)


def test_ranks_of_another_attempt_are_not_taken_for_those_of_this_one() -> None:
    """torchrun's store outlives an attempt; a rank that comes early must wait for the others."""
    store = HashStore()

    def attempt(rank: int, seconds: float) -> tuple[str, Any]:
        return gather(store, rank, 3, time.monotonic() + seconds)

    names = []
    with ThreadPoolExecutor() as threads:
        for _ in range(2):
            assert attempt(0, 0.2)[1]  # the others' tokens may be there already
            met = list(threads.map(attempt, range(3), [PATIENCE] * 3))
            assert len(set(met)) == 1
            assert not met[0][1]
            names.append(met[0][0])
    assert names[0] != names[1]
    assert list(attempt(1, 0)[1]) == [0, 2]


@pytest.mark.distributed
def test_ranks_that_torchrun_starts_again_meet_in_the_same_store(tmp_path: Path) -> None:
    script, died = tmp_path / "train.py", tmp_path / "died"
    script.write_text(DIES_ONCE)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    command += ["--max-restarts=1", "--monitor-interval=0.1", f"--master-port={free_port()}"]
    done = subprocess.run(
        [*command, str(script), str(died)],
        env=os.environ | {"DS_ACCELERATOR": "cpu", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert died.exists()
