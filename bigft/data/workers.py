"""Work on a stream of items in forked processes, in order."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from multiprocessing.connection import wait
from typing import Any, TypeVar

from bigft.config.errors import Problem
from bigft.data.cache import Interrupted
from bigft.runtime.environment import variables

Item = TypeVar("Item")
Result = TypeVar("Result")


def num_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0))


def map_in_order(
    work: Callable[[Item], Result], items: Iterator[Item], num_workers: int
) -> Generator[Result, None, None]:
    """Yields work(item) of every item in their order; three items per process are held at most.

    Processes are forked where there is more than one item, and no more of them than items. Close
    the generator to end them early.
    Raises Interrupted if one is killed, and what `work` raises.
    """
    ahead = list(islice(items, num_workers))
    num_workers = len(ahead)
    items = chain(ahead, items)
    del ahead  # or it would be held for as long as all that follows takes
    if num_workers < 2:
        yield from map(work, items)
        return
    # Forked: a worker starts at once, without importing transformers again.
    context = multiprocessing.get_context("fork")
    with (
        variables(TOKENIZERS_PARALLELISM="false"),  # its threads do not survive a fork
        ProcessPoolExecutor(num_workers, context, _start_worker, (work,)) as pool,
    ):
        waiting: deque[Future[Any]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(_work_in_worker, item))
                if len(waiting) > 2 * num_workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            found = f"one of {num_workers} processes was killed, most likely for want of memory"
            fix = "give fewer; what they had done is kept"
            raise Interrupted(Problem("data.preprocessing_num_workers", found, fix)) from error
        finally:
            pool.shutdown(cancel_futures=True)


_work: Callable[[Any], Any]


def _start_worker(work: Callable[[Any], Any]) -> None:
    global _work
    _work = work
    # A collection writes to the pages that are shared with the parent, and looks through all rows
    # that are held: one after each item is enough.
    gc.freeze()
    gc.disable()
    # Slurm and Ctrl-C reach every process of a group. They are for the parent, which ends the pool.
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    threading.Thread(target=_exit_with_parent, daemon=True).start()


def _work_in_worker(item: Any) -> Any:
    result = _work(item)
    gc.collect()
    return result


def _exit_with_parent() -> None:
    """A worker that outlived a killed parent would hold the inherited lock for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
