"""benchmarks/gpu.sh, walked through with stand-ins: there is no GPU here."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from waiting import PATIENCE

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "gpu.sh"
# What is called is told to a file; FAIL and HANG name words of calls that fail or never end.
STAND_IN = """#!/bin/bash
echo "$(basename "$0") $*" | tr '\\n' ' ' >>"$CALLS"; echo >>"$CALLS"
case "$*" in *get_device_capability*) echo "NVIDIA Stand-in"; echo 9.0;; esac
case "$*" in *pytest*) echo "$PASSED passed, 3 skipped";; esac
case "$*" in *"$FAIL"*) echo "it broke"; exit 3;; esac
case "$*" in *"$HANG"*) sleep 60;; esac
if [ "$1" = setup.py ]; then echo "arch $TORCH_CUDA_ARCH_LIST cuda $BIGFT_CUDA" >>"$CALLS"; fi
exit 0
"""


class Walk:
    def __init__(self, folder: Path, budget: str, fail: str, hang: str, passed: str) -> None:
        for name in ("python-stand-in", "compute-sanitizer"):
            (folder / name).write_text(STAND_IN)
            (folder / name).chmod(0o755)
        environment = {
            **os.environ,
            "PATH": f"{folder}:{os.environ['PATH']}",
            "PYTHON": "python-stand-in",
            "OUT": str(folder / "out"),
            "CALLS": str(folder / "calls"),
            "BUDGET": budget,
            "FAIL": fail,
            "HANG": hang,
            "PASSED": passed,
        }
        process = subprocess.run(
            [str(SCRIPT)],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert process.stderr == ""
        self.code = process.returncode
        self.lines = process.stdout.splitlines()
        self.calls = (folder / "calls").read_text().splitlines()
        self.log = (folder / "out" / "gpu.log").read_text()

    def stages(self) -> dict[str, str]:
        """The table: the last lines but one; what became of each stage."""
        table = self.lines[self.lines.index("") + 1 : -1]
        return {line[:34].strip(): line[44:] for line in table}


@pytest.fixture
def walk(tmp_path: Path) -> Callable[..., Walk]:
    def go(budget: str = "580", fail: str = "~", hang: str = "~", passed: str = "12") -> Walk:
        return Walk(tmp_path, budget, fail, hang, passed)

    return go


STAGES = [
    "the machine",
    "build",
    "tests",
    "compute-sanitizer memcheck",
    "compute-sanitizer racecheck",
    "compute-sanitizer initcheck",
    "measure masked_cross_entropy",
    "measure token_classification_head",
    "measure linear_cross_entropy",
]


def test_all_stages_run_for_the_gpu_that_is_there_and_the_table_is_last(
    walk: Callable[..., Walk],
) -> None:
    done = walk()
    assert done.code == 0
    assert done.stages() == dict.fromkeys(STAGES, "ok")
    assert "s in all; rows, pictures and gpu.log are in" in done.lines[-1]
    assert "arch 9.0 cuda 1" in done.calls
    assert "python-stand-in -m pytest -q -m gpu tests/ops " in done.calls
    assert sum(call.startswith("compute-sanitizer --tool") for call in done.calls) == 3
    out = done.lines[-1].rpartition(" ")[2]
    measured = (
        f"python-stand-in benchmarks/bench_linear_cross_entropy.py --device cuda --out {out} "
    )
    assert measured in done.calls


def test_a_stage_that_fails_hides_no_later_one(
    walk: Callable[..., Walk],
) -> None:
    done = walk(fail="setup.py")
    assert done.code == 1
    assert done.stages() == dict.fromkeys(STAGES, "ok") | {"build": "FAILED (3)"}
    assert "it broke" in done.lines
    assert "it broke" in done.log


def test_a_stage_that_hangs_is_ended_and_nothing_starts_without_time(
    walk: Callable[..., Walk],
) -> None:
    done = walk(budget="6", hang="setup.py")
    assert done.code == 1
    late = dict.fromkeys(STAGES[2:], "SKIPPED: no time left")
    assert done.stages() == {"the machine": "ok", "build": "OUT OF TIME"} | late


def test_tests_that_all_skip_are_no_success(walk: Callable[..., Walk]) -> None:
    done = walk(passed="0")
    assert done.code == 1
    assert done.stages()["tests"] == "FAILED (1)"
