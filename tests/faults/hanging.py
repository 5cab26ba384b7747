"""Ranks of test_hang.py: they meet as the product's do, tick, and misbehave."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Self

from distributed.ranks import _context
from waiting import PATIENCE

from bigft.runtime.failpoints import arm, failpoint
from bigft.runtime.launcher import Launch, free_port

TIMEOUT = 2.0
STEPS = 6


class World:
    """Ranks that do `misbehave(world, watchdog)`; in a `with`, at whose end none is left."""

    def __init__(self, size: int, directory: Path, misbehave: Callable[..., None]) -> None:
        port = free_port()
        self.directory = directory
        self.ranks: list[BaseProcess] = []
        for rank in range(size):
            args = (rank, size, port, directory, misbehave)
            process = _context.Process(target=_rank, args=args)
            process.start()
            self.ranks.append(process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.ranks:
            process.kill()
            process.join()

    def exit_codes(self, *numbers: int) -> list[int]:
        """Of these ranks; None of one that does not end."""
        deadline = time.monotonic() + PATIENCE
        for number in numbers:
            self.ranks[number].join(max(0.0, deadline - time.monotonic()))
        return [self.ranks[number].exitcode for number in numbers]  # type: ignore[misc]

    def log(self, number: int) -> str:
        return Path(self.directory, f"rank-{number}.log").read_text()

    @property
    def told(self) -> dict[int, str]:
        """What on_hang was told, by the rank that called it."""
        files = self.directory.glob("told-*")
        return {int(file.name.removeprefix("told-")): file.read_text() for file in files}


def _rank(rank: int, size: int, port: int, directory: Path, misbehave: Callable[..., None]) -> None:
    from bigft.runtime.process_group import join, leave, meet
    from bigft.runtime.watchdog import Watchdog

    launch = Launch.local(size, rank, port)
    world = join(launch, 60, meet(launch, 60))
    told, log = directory / f"told-{rank}", directory / f"rank-{rank}.log"
    with Watchdog(world, TIMEOUT, log, told.write_text) as watchdog:
        misbehave(world, watchdog)
    leave()


# -- what ranks do --------------------------------------------------------------------------------


def train(world: Any, watchdog: Any, failpoints: str = "", read: Callable[..., None] = id) -> None:
    """Steps, in each of which all ranks wait for each other."""
    arm(failpoints, world.rank)
    for step in range(STEPS):
        watchdog.tick(f"reading step {step}")
        read(step if world.rank == 1 else -1)
        watchdog.tick(f"step {step}")
        while any(rank.where != watchdog._me.where for rank in watchdog._ranks):
            time.sleep(TIMEOUT / 100)
        world.barrier()  # here all ranks have heard that all are in this step
        failpoint("step.forward")
        world.barrier()


def read_for_ever(step: int) -> None:
    if step == 3:
        time.sleep(1000)


def read_slowly(step: int) -> None:
    if step >= 0:
        time.sleep(TIMEOUT / 4)


def hold_python(step: int) -> None:
    if step == 3:
        time.sleep(TIMEOUT / 10)
        ctypes.PyDLL(None).sleep(1000)  # with the lock that every Python thread needs


def save_for_long(world: Any, watchdog: Any) -> None:
    """The first rank gets on alone, for longer than the time-out, while the others wait for it."""
    if world.is_first:
        for part in range(8):
            watchdog.tick(f"saving part {part}")
            time.sleep(TIMEOUT / 6)
    world.barrier()


def sleep(world: Any, watchdog: Any) -> None:
    watchdog.tick("sleeping")
    time.sleep(1000)


def wait_for_a_file(world: Any, watchdog: Any, file: Path) -> None:
    """Gets on while the file is there. A sleep is over when its time is: here it is many, so that
    much is left to wait for a rank that was suspended."""
    while file.exists():
        watchdog.tick("waiting")
        for _ in range(8):
            time.sleep(TIMEOUT / 16)


def fail_beside_a_stopped_rank(world: Any, watchdog: Any) -> None:
    if world.is_first:
        arm("stop=stop")
        failpoint("stop")
    time.sleep(TIMEOUT / 4)
    raise RuntimeError("of this rank's own")


stop = {rank: partial(train, failpoints=f"step.forward=stop@4#{rank}") for rank in range(3)}
read_slowly_on_one = partial(train, read=read_slowly)
read_for_ever_on_one = partial(train, read=read_for_ever)
hold_python_on_one = partial(train, read=hold_python)
