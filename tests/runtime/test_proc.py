"""What the kernel tells of a process's own threads."""

from __future__ import annotations

import os
import subprocess
import sys

from waiting import PATIENCE

from bigft.runtime.proc import CONTENDED

# Alone on a core it takes what there is; beside a child that spins there it waits half the time.
SPIN = """
import os, subprocess, sys, time
from bigft.runtime.proc import CpuTime
os.sched_setaffinity(0, {int(sys.argv[1])})
other = subprocess.Popen([sys.executable, "-c", "while True: pass"])
before = CpuTime.now()
while (spent := CpuTime.now() - before).ran < 0.5:
    pass
other.kill()
print(spent.waited / (spent.ran + spent.waited))
"""


def test_threads_that_wait_for_a_core_are_seen() -> None:
    core = min(os.sched_getaffinity(0))
    share = subprocess.run(
        [sys.executable, "-c", SPIN, str(core)],
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    ).stdout
    assert float(share) > CONTENDED
