"""A rank that dies takes the others with it, is named, and nothing is lost."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import REPOSITORY
from faults.harness import Config, finish, left_by, resumed
from waiting import PATIENCE, wait_until

from bigft.runtime import failpoints
from bigft.runtime.run_directory import RunDirectory

pytestmark = [pytest.mark.distributed, pytest.mark.slow]


@pytest.fixture
def config_of(
    config_for: Callable[..., Config], write_data: Callable[..., Path]
) -> Callable[[str], Config]:
    data = write_data([3, 11, 1, 7, 2, 19])
    keys: dict[str, Any] = {
        "train__max_steps": 6,
        "train__save_strategy": "steps",
        "train__save_steps": 2,
    }
    return lambda name: config_for(name, data, **keys)


def descendants(pid: int) -> list[int]:
    """Its ranks, and the process that they are forked from."""
    try:
        own = [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except OSError:  # it has ended
        return []
    return [*own, *(other for child in own for other in descendants(child))]


def held_of(pid: int) -> list[int]:
    """Those that are stopped."""
    states = {}
    for each in descendants(pid):
        with contextlib.suppress(OSError):
            states[each] = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()[0]
    return [each for each, state in states.items() if state == "T"]


def test_a_rank_killed_in_a_step_ends_all_and_is_named(
    config_of: Callable[[str], Config], tmp_path: Path
) -> None:
    config = config_of("run")
    file = tmp_path / "config.yaml"
    file.write_text(json.dumps(config))
    environ = {"PYTHONPATH": str(REPOSITORY), **os.environ}
    environ |= {failpoints.VARIABLE: "train.step=stop@4#1", "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "bigft", "train", str(file), "--nproc", "2"],
        env=environ,
        stderr=subprocess.PIPE,
        text=True,
    ) as parent:
        try:
            # Rank 1 is held in step 4, and rank 0 waits for it in a collective.
            wait_until(lambda: parent.poll() is not None or bool(held_of(parent.pid)))
            ranks, held = descendants(parent.pid), held_of(parent.pid)
            killed = time.monotonic()
            os.kill(held[0], signal.SIGKILL)
            # Left alone, rank 0 would wait as long as parallel.ddp_timeout, half an hour.
            wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in ranks), every=0.01)
            seconds = time.monotonic() - killed
            _, errors = parent.communicate(timeout=PATIENCE)
        finally:
            parent.kill()
    whole = time.monotonic() - killed
    print(f"no rank was left after {seconds:.1f} s, nor their parent after {whole:.1f} s")

    run = RunDirectory(config["train"]["output_dir"])
    why = f"rank 1 ended first, by SIGKILL; its log: {run.log_file(1)}"
    assert f"bigft: {why}\n" in errors
    assert parent.returncode == 128 + signal.SIGKILL
    about = run.read()
    assert (about["status"], about["why"], about["exit_code"]) == ("resumable", why, 137)
    assert not (run.path / "LOCK").exists()

    finish(resumed(config))
    finish(config_of("whole"))
    assert left_by(config) == left_by(config_of("whole"))
