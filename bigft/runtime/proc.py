"""What Linux tells of processes, and does for them. Needs no torch: `bigft env` uses it where torch
is broken."""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

PR_SET_PDEATHSIG = 1


def read_fields(path: str) -> dict[str, str]:
    """The first value of every `key: value` line, as in /proc/cpuinfo and /proc/meminfo."""
    values: dict[str, str] = {}
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        values.setdefault(key.strip(), value.strip())
    return values


def die_with(parent: int) -> None:
    """From now on this process is killed when its parent, of that id, dies; at once if it has."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(1)
