"""Ends a run whose ranks have stopped, after telling which of them is behind, and where.

A rank's main thread ticks as it gets on. Two daemon threads beside it: one carries its count to the
store where the ranks met, and the others' from there; the other one looks whether any count still
moves. They are two, since a store whose host is stopped answers nothing and never returns.
"""

from __future__ import annotations

import faulthandler
import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bigft.config.exit_codes import EXIT_HUNG
from bigft.runtime.process_group import World

LOOKS = 20  # in one time-out
SECONDS_BETWEEN_LOOKS = 5.0  # at most
SILENT = 0.75  # of a time-out: so long without a beat, and a rank counts as not answering
SECONDS_TO_TELL = 5.0  # for each: stacks written, other ranks' stacks awaited, on_hang called
LEFT = "left"


@dataclass(slots=True)
class _Rank:
    """A rank as another one sees it; silent: seconds since its beat was last seen to change."""

    count: int = 0
    where: str = "start"
    beat: int = 0
    has_told: bool = False  # its stacks are in its log
    silent: float = 0.0


class Watchdog:
    """In a `with`: this process ends with EXIT_HUNG when no rank has ticked for timeout_seconds.

    Before that every rank that is able to writes the stacks of its threads to its log, and the
    first of them calls on_hang with a sentence that names the ranks that are behind, and where they
    are. Time in which this process was itself suspended does not count.

    Entering is collective. log: this rank's.  on_hang: called in a thread; has a few seconds.
    """

    def __init__(
        self, world: World, timeout_seconds: float, log: Path, on_hang: Callable[[str], None]
    ) -> None:
        self._world, self._timeout, self._on_hang = world, timeout_seconds, on_hang
        self._log_path = log
        self._every = min(timeout_seconds / LOOKS, SECONDS_BETWEEN_LOOKS)
        self._me = _Rank()
        self._ranks = [_Rank() for _ in range(world.size)]
        self._ranks[world.rank] = self._me
        self._exchanges = 0
        self._is_cut_off = False
        self._closed, self._left = threading.Event(), threading.Event()
        self._threads: list[threading.Thread] = []

    def tick(self, where: str) -> None:
        """This rank got on, to `where`: "step 7, micro-step 0". Cheap; for the main thread."""
        self._me.where = where
        self._me.count += 1

    def __enter__(self) -> Watchdog:
        self._log = self._log_path.open("a", encoding="utf-8")
        tasks = [self._look]
        if self._world.size > 1:
            self._world.store.set(_key(self._world.rank), self._state())
            self._world.barrier()  # from here on every rank's state is there
            tasks.append(self._exchange)
        for task in tasks:
            thread = threading.Thread(target=task, name="bigft-watchdog", daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(self, *exception: object) -> None:
        looking, *exchanging = self._threads
        self._closed.set()
        looking.join()  # for ever, if it is about to end this process
        self._me.where = LEFT
        self._left.set()
        for thread in exchanging:
            thread.join(timeout=1.0)  # a stopped store may hold it
        faulthandler.cancel_dump_traceback_later()
        self._log.close()

    # -- what ranks know of each other ---------------------------------------------------------

    def _state(self) -> str:
        me = self._me
        return json.dumps([me.count, me.where, me.beat, me.has_told])

    def _exchange(self) -> None:
        """Tells the other ranks this one's state and hears theirs, again and again."""
        others = [rank for rank in range(self._world.size) if rank != self._world.rank]
        store = self._world.store
        while True:
            is_last = self._left.wait(self._every)
            self._me.beat += 1
            try:
                store.set(_key(self._world.rank), self._state())
                if is_last:
                    return
                for rank in others:
                    self._hear(self._ranks[rank], json.loads(store.get(_key(rank))))
                self._exchanges += 1
                self._is_cut_off = False
            except RuntimeError:  # of torch.distributed: timed out, or its host is gone
                if is_last:
                    return
                self._is_cut_off = True
                store = self._reconnected() or store

    def _hear(self, rank: _Rank, state: tuple[int, str, int, bool]) -> None:
        if state[2] != rank.beat:
            rank.silent = 0.0
        rank.count, rank.where, rank.beat, rank.has_told = state

    def _reconnected(self) -> object:
        """A new connection: the old one may still get the answer to its last question."""
        try:
            return self._world.store.clone()
        except RuntimeError:
            return None

    # -- what a rank makes of it ---------------------------------------------------------------

    def _look(self) -> None:
        still = store_silent = 0.0
        seen = heard = -1
        before = time.monotonic()
        while not self._closed.wait(self._every):
            # Should Python itself hang from here on, this is written without it.
            faulthandler.dump_traceback_later(1.5 * self._timeout, file=self._log)
            now = time.monotonic()
            passed, before = min(now - before, 2 * self._every), now  # at most: not suspended
            for rank in self._ranks:
                rank.silent = 0.0 if rank is self._me else rank.silent + passed
            counts = sum(rank.count for rank in self._ranks)
            still = still + passed if counts == seen else 0.0
            store_silent = store_silent + passed if self._exchanges == heard else 0.0
            seen, heard = counts, self._exchanges
            if still >= self._timeout:
                self._end(has_store=self._world.size == 1 or store_silent < SILENT * self._timeout)

    def _end(self, has_store: bool) -> None:
        silent = SILENT * self._timeout
        answering = [
            number
            for number, rank in enumerate(self._ranks)
            # Without a store only its host is known not to answer.
            if rank is self._me or (rank.silent < silent if has_store else number > 0)
        ]
        who = self._who(answering, answering if has_store else [self._world.rank])
        text = f"no rank got any further for {self._timeout:g} s; {who}"

        def write() -> None:
            # Not through logging: the main thread may hang with its lock.
            print(time.strftime("%Y-%m-%d %H:%M:%S"), "bigft:", text, file=self._log, flush=True)
            faulthandler.dump_traceback(self._log, all_threads=True)
            self._me.has_told = True

        def wait() -> None:
            """Until the others have told, and know that this rank has."""
            others = [self._ranks[number] for number in answering if number != self._world.rank]
            known = self._exchanges + 2
            while self._world.size > 1 and not self._is_cut_off:
                if self._exchanges >= known and all(rank.has_told for rank in others):
                    break
                time.sleep(self._every / 4)

        def report() -> None:
            if self._world.rank == answering[0]:
                self._on_hang(text)

        try:
            for task in (write, wait, report):
                # A file system that hangs must not keep this process.
                thread = threading.Thread(target=task, daemon=True)
                thread.start()
                thread.join(timeout=SECONDS_TO_TELL)
        finally:
            os._exit(EXIT_HUNG)

    def _who(self, answering: list[int], known: list[int]) -> str:
        """What keeps the ranks, and where they are.

        known: the ranks whose last tick is known, not only an older one.
        """
        counts = {n: rank.count for n, rank in enumerate(self._ranks) if rank.where != LEFT}
        lost = [number for number in counts if number not in answering]
        behind = [number for number in counts if counts[number] == min(counts.values())]
        if not lost and len(behind) == len(counts):
            return self._places(behind)
        slow = lost or behind
        others = [number for number in known if number in counts and number not in slow]
        verdict = "no answer from" if lost else "behind:"
        return f"{verdict} {self._places(slow)}; waiting: {self._places(others)}"

    def _places(self, numbers: list[int]) -> str:
        ranks: dict[str, list[str]] = {}
        for number in numbers:
            ranks.setdefault(self._ranks[number].where, []).append(str(number))
        return ", ".join(f"rank {' and '.join(each)} at {where!r}" for where, each in ranks.items())


def _key(rank: int) -> str:
    return f"bigft/watchdog/{rank}"
