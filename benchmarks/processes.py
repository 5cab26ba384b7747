"""One process of Python, measured: seconds, CPU, peak memory; and what machine it ran on.

Imports no torch: a child's memory peak is never below that of the process that started it.
"""

from __future__ import annotations

import os
import platform
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
TAIL = 20  # lines of output that are shown of a process that failed


class Finished(NamedTuple):
    """A process that ended well.

    started: unix seconds.  cpu_seconds: of it and of the children that it waited for.
    peak_rss_mib: its own.  seconds_until: to the line of output that was waited for, and
    rss_mib_then: its memory when that came; None: none was.
    """

    started: float
    wall_seconds: float
    cpu_seconds: float
    peak_rss_mib: float
    seconds_until: float | None = None
    rss_mib_then: float | None = None


def run(
    words: Sequence[str],
    folder: Path,
    threads: int | None = None,
    checkout: Path = ROOT,
    until: str = "",
) -> Finished:
    """Runs Python with `words` to its end; exits with the tail of its output if it fails.

    folder: of its cache, which is empty at first: every provider prepares its data itself.
    threads: OMP_NUM_THREADS; None: as it is here.  checkout: whose bigft it imports.
    until: the beginning of a line of its output, at which time and memory are taken.
    """
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(checkout), os.environ.get("PYTHONPATH")])),
        "PYTHONUNBUFFERED": "1",
        "BIGFT_CACHE": str(folder / "cache"),
    }
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    started, clock = time.time(), time.monotonic()
    seconds_until = rss_mib_then = None
    process = subprocess.Popen(
        [sys.executable, *words],
        env=environment,
        cwd=checkout,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if until and seconds_until is None and line.startswith(until):
            seconds_until = time.monotonic() - clock
            rss_mib_then = _resident(process.pid)
    # wait4 tells this child's peak; RUSAGE_CHILDREN would be the peak over all of them.
    _, status, usage = os.wait4(process.pid, 0)
    wall_seconds = time.monotonic() - clock
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    if process.returncode != 0 or (until and seconds_until is None):
        ended = f"exit code {process.returncode} of python {' '.join(words)} in {checkout}"
        sys.exit(f"{ended}\n{''.join(lines[-TAIL:])}")
    cpu_seconds = usage.ru_utime + usage.ru_stime
    peak_rss_mib = usage.ru_maxrss / 1024
    return Finished(started, wall_seconds, cpu_seconds, peak_rss_mib, seconds_until, rss_mib_then)


def _resident(pid: int) -> float:
    """MiB; of a process that is not yet waited for."""
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="utf-8").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "cpu"


def device_slug() -> str:
    """What torch trains on by default, for the name of a file: "cpu" or the GPU's name. Asked in a
    process of its own."""
    code = "import torch as t; print(t.cuda.get_device_name() if t.cuda.is_available() else 'cpu')"
    name = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return name.stdout.strip().lower().replace(" ", "-")
