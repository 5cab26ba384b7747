"""A world that stops is ended: the stacks of all ranks are in their logs, the slow one is named."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from faults import hanging
from faults.hanging import STEPS, TIMEOUT, World
from faults.harness import Config, Ranks
from waiting import PATIENCE, wait_until

from bigft.config.exit_codes import EXIT_HUNG
from bigft.runtime.run_directory import RunDirectory

pytestmark = pytest.mark.distributed


def test_a_run_whose_first_rank_is_stopped_ends_resumably_and_says_why(
    config_for: Callable[..., Config], write_data: Callable[..., Path]
) -> None:
    """`bigft train`, with parallel.ddp_timeout; it had saved after two steps."""
    keys = {"parallel__ddp_timeout": 6, "train__save_strategy": "steps", "train__save_steps": 2}
    config = config_for("run", write_data([3, 5, 8, 2]), train__max_steps=9, **keys)
    directory = RunDirectory(config["train"]["output_dir"])
    with Ranks(config, failpoints="train.step=stop@4#0") as ranks:
        ranks.wait_until_held(0)
        held = time.monotonic()
        ranks.processes[1].join(PATIENCE)
        assert time.monotonic() - held > 5
        assert ranks.processes[1].exitcode == EXIT_HUNG, ranks.output()
    run = directory.read()
    assert run["status"] == "resumable"
    assert "no answer from rank 0" in run["why"]
    log = directory.log_file(1).read_text()
    assert "no answer from rank 0" in log
    assert "most recent call first" in log


@pytest.mark.parametrize("stopped", [0, 2])
def test_a_stopped_rank_is_named_by_the_others(stopped: int, tmp_path: Path) -> None:
    """Rank 0 too, whose store the ranks talk through."""
    others = [rank for rank in range(3) if rank != stopped]
    with World(3, tmp_path, hanging.stop[stopped]) as world:
        assert world.exit_codes(*others) == [EXIT_HUNG] * 2
        assert world.ranks[stopped].is_alive()
        assert [*world.told] == [others[0]]
    for rank in others:
        assert f"no answer from rank {stopped} at 'step 3'; waiting: " in world.log(rank)
        assert "in barrier" in world.log(rank)  # what it waits in
        waiting = world.log(rank).partition("waiting: ")[2].splitlines()[0]
        assert waiting.startswith("rank ")
        assert f"{rank} " in waiting


def test_a_rank_that_hangs_in_python_is_named_with_where(tmp_path: Path) -> None:
    with World(3, tmp_path, hanging.read_for_ever_on_one) as world:
        assert world.exit_codes(0, 1, 2) == [EXIT_HUNG] * 3
    behind = "behind: rank 1 at 'reading step 3'; waiting: rank 0 and 2 at 'step 3'"
    assert world.told == {0: f"no rank got any further for {TIMEOUT:g} s; {behind}"}
    assert "in read_for_ever" in world.log(1)
    assert all(behind in world.log(rank) for rank in range(3))


def test_a_rank_that_hangs_with_pythons_lock_still_writes_its_stacks(tmp_path: Path) -> None:
    with World(2, tmp_path, hanging.hold_python_on_one) as world:
        assert world.exit_codes(0) == [EXIT_HUNG]
        assert "no answer from rank 1 at 'reading step 3'; waiting: rank 0" in world.told[0]
        wait_until(lambda: "in hold_python" in world.log(1))


def test_one_rank_alone_is_ended_too(tmp_path: Path) -> None:
    with World(1, tmp_path, hanging.sleep) as world:
        assert world.exit_codes(0) == [EXIT_HUNG]
    assert "s; rank 0 at 'sleeping'" in world.told[0]
    assert "in sleep" in world.log(0)


@pytest.mark.parametrize("slow", [hanging.read_slowly_on_one, hanging.save_for_long])
def test_a_slow_world_is_left_alone(slow: partial[None], tmp_path: Path) -> None:
    """It takes longer than the time-out in all, no rank so long between two ticks."""
    assert STEPS * TIMEOUT / 4 > TIMEOUT
    with World(2, tmp_path, slow) as world:
        assert world.exit_codes(0, 1) == [0, 0]
    assert not world.told
    assert not world.log(0) + world.log(1)


def test_time_in_which_a_world_was_suspended_does_not_count(tmp_path: Path) -> None:
    """As `scontrol suspend` does it."""
    file = tmp_path / "file"
    file.touch()
    with World(2, tmp_path, partial(hanging.wait_for_a_file, file=file)) as world:
        for number, seconds in ((signal.SIGSTOP, 1.5 * TIMEOUT), (signal.SIGCONT, TIMEOUT / 2)):
            time.sleep(TIMEOUT / 4)
            for rank in world.ranks:
                assert rank.pid is not None
                os.kill(rank.pid, number)
            time.sleep(seconds)
        file.unlink()
        assert world.exit_codes(0, 1) == [0, 0]
    assert not world.told


def test_a_rank_can_fail_beside_a_stopped_one(tmp_path: Path) -> None:
    """What its watchdog waits for does not keep it."""
    with World(2, tmp_path, hanging.fail_beside_a_stopped_rank) as world:
        assert world.exit_codes(1) == [1]
    assert not world.told
