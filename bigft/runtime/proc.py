"""What Linux tells of processes, and does for them. Needs no torch: `bigft env` uses it where torch
is broken."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

PR_SET_PDEATHSIG = 1
# Found now: a process that was just forked, of which another thread was loading a library, must not
# ask the loader for it.
_prctl = ctypes.CDLL(None).prctl
CONTENDED = 0.1  # of the time of threads waited for a core: a user should know


def read_fields(path: str) -> dict[str, str]:
    """The first value of every `key: value` line, as in /proc/cpuinfo and /proc/meminfo."""
    values: dict[str, str] = {}
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        values.setdefault(key.strip(), value.strip())
    return values


@dataclass(frozen=True, slots=True)
class CpuTime:
    """Seconds of a process's threads. ran: on a core.  waited: ready to run, but other threads had
    the cores."""

    ran: float
    waited: float

    @classmethod
    def now(cls) -> CpuTime:
        """Of this process's threads since each began; 0 where the kernel does not count."""
        ran = waited = 0
        for thread in Path("/proc/self/task").iterdir():
            with suppress(OSError):  # it has just ended, or there is no such file
                own, others, *_ = (thread / "schedstat").read_text().split()
                ran, waited = ran + int(own), waited + int(others)
        return cls(ran / 1e9, waited / 1e9)

    def __sub__(self, earlier: CpuTime) -> CpuTime:
        # A thread that has ended in between takes its seconds with it.
        return CpuTime(max(0.0, self.ran - earlier.ran), max(0.0, self.waited - earlier.waited))


def start_python(
    words: Sequence[str],
    environ: Mapping[str, str],
    output: BinaryIO | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.Popen[bytes]:
    """Python with these arguments: the leader of a process group, and killed when this process
    dies. output: what it prints goes there; None: where this process prints."""
    parent = os.getpid()
    return subprocess.Popen(
        [sys.executable, *words],
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        pass_fds=pass_fds,
        process_group=0,  # Ctrl-C is passed on to ranks, and must not reach them twice
        preexec_fn=lambda: die_with(parent),
    )


def die_with(parent: int) -> None:
    """From now on this process is killed when its parent, of that id, dies; at once if it has."""
    _prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(1)
