"""Other processes that hold a run directory."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

HOLD = """
import sys
from bigft.runtime.run_directory import RunDirectory
print(RunDirectory(sys.argv[1]).claim(resume=True)["pid"], flush=True)
input()
"""


@pytest.fixture
def held_by() -> Iterator[Callable[[Path], subprocess.Popen[str]]]:
    """`held_by(path)`: a process that has claimed the run directory, until it is killed."""
    started = []

    def start(path: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == f"{process.pid}\n"
        return process

    yield start
    for process in started:
        kill(process)


def kill(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()
