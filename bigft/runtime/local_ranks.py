"""Ranks on one machine: started, told of signals, and ended together."""

from __future__ import annotations

import contextlib
import math
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bigft.config.exit_codes import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_RESUMABLE
from bigft.runtime.fork_server import ForkServer, ServerEnded
from bigft.runtime.launcher import Launch, free_port
from bigft.runtime.proc import start_python
from bigft.runtime.signals import FORWARDED_SIGNALS, is_main_thread

# After the first rank ended: where it failed, the others may hang in a collective with it for good;
# where all stop as asked, the first one may still be writing.
SECONDS_TO_STOP = 5.0
SECONDS_TO_LEAVE = 30.0
# Python runs a handler when its main thread wakes; of two signals the second may reach another.
SECONDS_BETWEEN_LOOKS = 0.2


class Rank(Protocol):
    """A process that leads its own group. pid: its own until it is reaped."""

    pid: int

    def wait(self) -> None:
        """Returns when it has ended."""

    def reap(self) -> int:
        """Its exit code; -n if signal n ended it. Waits for its end."""


class SpawnedRank:
    """A new process of Python, which loads all that it needs itself."""

    def __init__(self, argv: Sequence[str], environ: Mapping[str, str], log: Path | None) -> None:
        with log.open("ab") if log else contextlib.nullcontext() as output:
            self._process = start_python(["-m", "bigft", *argv], environ, output)
        self.pid = self._process.pid

    def wait(self) -> None:
        os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)

    def reap(self) -> int:
        return self._process.wait()


@dataclass(frozen=True, slots=True)
class Ended:
    """How ranks ended: all with 0, or the first that did not.

    code: their exit code; 128 + n where the first one was ended by signal n.  why: a sentence that
    names it, "" where nothing failed.
    """

    code: int = 0
    rank: int = 0
    why: str = ""


def run_ranks(
    argv: Sequence[str],
    nproc: int,
    environ: Mapping[str, str],
    log_file: Callable[[int], Path] | None = None,
    server: ForkServer | None = None,
) -> Ended:
    """Runs `bigft <argv>` as nproc ranks on this machine; returns how they ended.

    When one fails the others get SIGTERM, and SIGKILL SECONDS_TO_STOP later. SIGTERM, SIGINT,
    SIGUSR1 and SIGUSR2 are passed on to every rank. No rank outlives this process, and no worker
    its rank, however they end.
    In another thread than the main one no signal reaches them.

    environ: of every rank, but for its place (`environment_of_ranks`).
    log_file: the log of each rank, `RunDirectory.log_file`; what ranks above 0 print is appended to
    theirs, since the terminal is rank 0's. None: all ranks print to the terminal.
    server: of `fork_server`, which forks them; None: each is a new process of Python.
    """
    happenings: queue.SimpleQueue[int | signal.Signals] = queue.SimpleQueue()  # ranks, signals
    running: dict[int, Rank] = {}
    ended: Ended | None = None
    deadline = math.inf
    passed_on: set[int] = set()

    def wait_for(rank: int, process: Rank) -> None:
        process.wait()
        happenings.put(rank)

    start = server.fork if server else SpawnedRank
    port = free_port()
    with _signals_into(happenings):
        if server and (number := _signal_before(server.loaded, happenings)):
            return _ended(0, -number, {number}, log_file)
        try:
            for rank in range(nproc):
                place = Launch.local(nproc, rank, port).environment()
                log = log_file(rank) if log_file and rank > 0 else None
                running[rank] = start(argv, {**environ, **place}, log)
            # One waiting thread per rank: exits are seen in the order in which they happen.
            for item in running.items():
                threading.Thread(target=wait_for, args=item, daemon=True).start()
            while running:
                try:
                    happening = happenings.get(timeout=SECONDS_BETWEEN_LOOKS)
                except queue.Empty:
                    if time.monotonic() > deadline:
                        for process in running.values():
                            _kill(process)
                        deadline = math.inf
                    continue
                if isinstance(happening, signal.Signals):
                    passed_on.add(happening)
                    _send(running, happening)
                    if happening == signal.SIGINT:  # nothing is saved that would take longer
                        deadline = min(deadline, time.monotonic() + SECONDS_TO_STOP)
                    continue
                process = running.pop(happening)
                _kill(process)  # its workers; before it is reaped nobody else can have its id
                code = process.reap()
                if code != 0 and ended is None:
                    ended = _ended(happening, code, passed_on, log_file)
                    if server and server.why_ended:
                        ended = Ended(EXIT_FAILED, happening, server.why_ended)
                    if ended.why:
                        print(f"bigft: {ended.why}", file=sys.stderr, flush=True)
                    _send(running, signal.SIGTERM)
                    seconds = SECONDS_TO_STOP if ended.why else SECONDS_TO_LEAVE
                    deadline = min(deadline, time.monotonic() + seconds)
        except ServerEnded as error:
            ended = Ended(EXIT_FAILED, len(running), str(error))
            print(f"bigft: {ended.why}", file=sys.stderr, flush=True)
        finally:
            for process in running.values():
                _kill(process)
    return ended or Ended()


@contextlib.contextmanager
def _signals_into(happenings: queue.SimpleQueue[int | signal.Signals]) -> Iterator[None]:
    """Queued, not sent on by the handler: a signal during the start reaches all ranks too."""
    before = {
        number: signal.signal(number, lambda n, frame: happenings.put(signal.Signals(n)))
        for number in (FORWARDED_SIGNALS if is_main_thread() else ())
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signal_before(
    loaded: threading.Event, happenings: queue.SimpleQueue[int | signal.Signals]
) -> int | None:
    """The signal that came first. There is no rank yet to pass it on to, and loading may take long,
    or for ever: on a file system that hangs."""
    while not loaded.wait(SECONDS_BETWEEN_LOOKS):
        with contextlib.suppress(queue.Empty):
            return happenings.get_nowait()
    return None


def _send(running: Mapping[int, Rank], number: signal.Signals) -> None:
    for process in running.values():
        with contextlib.suppress(ProcessLookupError):  # of a server that was killed
            os.kill(process.pid, number)


def _kill(process: Rank) -> None:
    """Ends the rank and the workers that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _ended(
    rank: int, code: int, passed_on: Set[int], log_file: Callable[[int], Path] | None
) -> Ended:
    if signal.SIGINT in passed_on:  # however a rank ends of it, or of another that ended of it
        return Ended(EXIT_INTERRUPTED, rank)
    # Asked for, so nothing failed; a rank that is just starting dies of what it will handle later.
    if code == EXIT_RESUMABLE or -code in passed_on:
        return Ended(EXIT_RESUMABLE, rank)
    how = f"exit code {code}" if code > 0 else signal.Signals(-code).name
    where = f"; its log: {log_file(rank)}" if log_file else ""
    why = f"rank {rank} ended first, by {how}{where}"
    return Ended(code if code > 0 else 128 - code, rank, why)
