"""Real ranks for tests: processes forked from a server that has torch and deepspeed loaded.

A cold start of two ranks costs 12 s, a fork of the server 0.1 s. One layout is one launch: what a
test wants of a layout runs in the same processes, one after the other.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import time
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from waiting import PATIENCE

from bigft.runtime.launcher import Launch

SECONDS_TO_LEAVE = 5.0  # all have answered; where one failed, the others wait for it in vain
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["tests.distributed.preload"])


class RankFailed(AssertionError):
    """A rank raised, died or hung; str() holds its traceback."""


def run_ranks(
    scenario: Callable[..., Any], world_size: int, *args: Any, timeout: float = PATIENCE
) -> list[Any]:
    """`scenario(world, *args)` on every rank of a new world; the results by rank.

    scenario: a function of an importable module.  args, results: plain picklable data.
    Raises RankFailed for the first rank that did not return, after ending the others.
    """
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    with tempfile.TemporaryDirectory() as store:
        ranks = []
        for rank in range(world_size):
            ours, theirs = _context.Pipe(duplex=False)
            launch = Launch(rank, rank, world_size, world_size, "127.0.0.1", 1, "environment")
            process = _context.Process(
                target=_rank, args=(theirs, scenario, launch, str(Path(store, "store")), args)
            )
            process.start()
            theirs.close()
            ranks.append((process, ours))
        try:
            deadline = time.monotonic() + timeout
            return [
                _result(rank, connection, deadline) for rank, (_, connection) in enumerate(ranks)
            ]
        finally:
            for process, _ in ranks:
                process.join(timeout=SECONDS_TO_LEAVE)
                if process.is_alive():
                    process.kill()
                    process.join()


def _result(rank: int, connection: Connection, deadline: float) -> Any:
    if not connection.poll(max(0.0, deadline - time.monotonic())):
        raise RankFailed(f"rank {rank} hangs")
    try:
        failed, value = connection.recv()
    except EOFError:
        raise RankFailed(f"rank {rank} died without a word") from None
    if failed:
        raise RankFailed(f"rank {rank} raised\n{value}")
    return value


def _rank(
    connection: Connection,
    scenario: Callable[..., Any],
    launch: Launch,
    store: str,
    args: tuple[Any, ...],
) -> None:
    import torch
    from torch.distributed import FileStore  # type: ignore[attr-defined]

    from bigft.runtime.process_group import join, leave

    torch.set_num_threads(1)  # bits depend on it, and two cores serve all ranks
    try:
        world = join(launch, timeout_seconds=120, store=FileStore(store, launch.world_size))
        result = scenario(world, *args)
        leave()
        connection.send((False, result))
    except BaseException:
        connection.send((True, traceback.format_exc()))
        os._exit(1)  # no waiting for ranks that wait for this one
