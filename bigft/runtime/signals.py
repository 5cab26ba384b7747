"""Signals that ask for a stop. Handlers only set a flag; ranks agree on it at a step boundary."""

from __future__ import annotations

import signal
from types import FrameType

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class StopRequest:
    """Whether this process was asked to save and stop, and by which signal."""

    def __init__(self) -> None:
        self.signal: int | None = None

    def install(self) -> None:
        """Takes over SIGTERM, SIGUSR1 and SIGUSR2; must run in the main thread."""
        for number in STOP_SIGNALS:
            signal.signal(number, self._remember)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        self.signal = number

    def __bool__(self) -> bool:
        return self.signal is not None

    @property
    def name(self) -> str:
        """SIGTERM, SIGUSR1, ...; on a rank that got none, that another one did."""
        return signal.Signals(self.signal).name if self.signal else "a signal to another rank"
