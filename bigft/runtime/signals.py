"""Requests to save and stop: signals, and a run's time limit. Handlers only set a flag.
Ctrl-C ends a verb, wherever it falls.

While ranks stand alone (preparing data, before they meet) there is nothing to agree on and nothing
that could be torn: there a signal is raised as `Stopped`. From then on ranks agree on it where all
of them pass: at a step's boundary, after each batch of an evaluation.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bigft.runtime.process_group import World

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
FORWARDED_SIGNALS = (*STOP_SIGNALS, signal.SIGINT)  # to the ranks that a process started

_interrupted = False


def is_main_thread() -> bool:
    """Whether this is the thread in which Python lets signals be handled."""
    return threading.current_thread() is threading.main_thread()


@contextmanager
def interruptible() -> Iterator[None]:
    """After Ctrl-C in the block KeyboardInterrupt leaves it, whatever became of the one that was
    raised: called back from C++ it becomes a RuntimeError, and a bare `except` drops it.

    Must run in the main thread. Where Ctrl-C is ignored (`nohup`) it stays so.
    """
    global _interrupted
    _interrupted = False
    takes_over = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if takes_over:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        yield
    except BaseException as error:
        if _interrupted:
            raise KeyboardInterrupt from error
        raise
    else:
        raise_if_interrupted()
    finally:
        if takes_over:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        _interrupted = False  # what comes after in this process is another matter


def is_interrupted() -> bool:
    """Whether Ctrl-C came in the block of `interruptible`: what fails then fails because of it."""
    return _interrupted


def raise_if_interrupted() -> None:
    """Raises KeyboardInterrupt again, where the first one may have been dropped."""
    if _interrupted:
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:
    global _interrupted
    _interrupted = True
    raise KeyboardInterrupt


class Stopped(BaseException):
    """What was going on is dropped, since a stop was asked for; str() says by what."""


# What is kept free before train.max_time, in slowest looks and slowest saves so far.
LOOKS, SAVES = 2, 1.5


class StopRequest:
    """Whether this process was asked to save and stop, and by what.

    why: SIGTERM, SIGUSR1, train.max_time; "" where this rank was not asked.
    """

    def __init__(self) -> None:
        self._deadline: float | None = None
        self.why = ""
        self._raises = False
        self._slowest = self._reserve = 0.0

    def install(self) -> None:
        """Takes over SIGTERM, SIGUSR1 and SIGUSR2; in another thread than the main one, where
        Python lets nobody, it does nothing."""
        if is_main_thread():
            for number in STOP_SIGNALS:
                signal.signal(number, self._remember)

    def request(self, why: str) -> None:
        """Asks as a signal would; of several reasons the last is told."""
        self.why = why

    def limit(self, deadline: float) -> None:
        """Asks by itself so early that the work up to the next look, and a save, will be done by
        that moment of time.monotonic(): see `took`."""
        self._deadline = deadline

    def took(self, seconds: float, save_seconds: float) -> None:
        """seconds: from one look to the next.  save_seconds: of the slowest save so far."""
        self._slowest = max(self._slowest, seconds)
        self._reserve = LOOKS * self._slowest + SAVES * save_seconds

    @contextmanager
    def raising(self) -> Iterator[None]:
        """In the block a request, one made before it too, is raised as Stopped at once."""
        if self:
            raise Stopped(self.why)
        self._raises = True
        try:
            yield
        finally:
            self._raises = False

    def reason(self, world: World) -> str:
        """By what the first rank that was asked to stop was. Collective, where one was."""
        self.why = next(why for why in world.gather(self.why) if why)
        return self.why

    def agreed(self, world: World) -> bool:
        """Whether any rank was asked to stop, the same on all of them. Collective."""
        return world.any(bool(self))

    def __bool__(self) -> bool:
        raise_if_interrupted()
        late = self._deadline is not None and time.monotonic() + self._reserve > self._deadline
        if late and not self.why:
            self.request("train.max_time")
        return bool(self.why)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.request(signal.Signals(number).name)
        if self._raises:
            self._raises = False  # once: what cleans up is not to be interrupted again
            raise Stopped(self.why)
