"""Two runs, one directory: the second is refused or the first one is dead; never do both write."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults.harness import Config, Ranks, finish, left_by, resumed

from bigft.runtime.run_directory import RunDirectory

pytestmark = pytest.mark.distributed


@pytest.fixture
def config(config_for: Callable[..., Config], write_data: Callable[..., Path]) -> Config:
    keys: dict[str, Any] = {
        "train__max_steps": 4,
        "train__save_strategy": "steps",
        "train__save_steps": 2,
    }
    return config_for("run", write_data([3, 11, 1, 7]), **keys)


def go_on(ranks: Ranks) -> None:
    ranks.send(0, signal.SIGCONT)


def steps_saved(config: Config) -> list[int]:
    return [step for step, _ in RunDirectory(config["train"]["output_dir"]).checkpoints()]


def test_the_second_run_is_refused_and_told_who_holds_the_directory(config: Config) -> None:
    with Ranks(config, 1, failpoints="train.step=stop@2") as first:
        first.wait_until_held(0)
        for second in (config, resumed(config)):
            with Ranks(second, 1) as refused:
                assert refused.wait() == [2]
            holder = f"is held by process {first.processes[0].pid} on "
            assert holder in refused.output(), refused.output()
            assert "Traceback" not in refused.output()
        go_on(first)
        assert first.wait() == [0], first.output()
    assert steps_saved(config) == [2, 4]
    assert not Path(config["train"]["output_dir"], "LOCK").exists()


def test_a_dead_run_is_taken_over_at_once(config: Config) -> None:
    with Ranks(config, 1, failpoints="train.step=kill@4") as first:
        assert first.wait() == [-signal.SIGKILL]
    run = RunDirectory(config["train"]["output_dir"])
    assert json.loads((run.path / "LOCK").read_text())["pid"] == first.processes[0].pid
    assert run.observe()["status"] == "resumable"
    second = finish(resumed(config), 1)
    assert "waiting" not in second.output()
    assert run.read()["status"] == "finished"


def job(restart_count: int) -> dict[str, str]:
    """What ranks of one Slurm job find in its n-th restart."""
    return {"SLURM_JOB_ID": "77", "SLURM_RESTART_COUNT": str(restart_count)}


@pytest.mark.parametrize(
    "cut_off_in", ["train.step=stop@4", "checkpoint.rename=stop@1"], ids=["step", "commit"]
)
def test_a_requeued_job_takes_over_and_the_node_that_was_cut_off_commits_nothing(
    config: Config, cut_off_in: str
) -> None:
    """As after a node failure: Slurm starts the job elsewhere, and the lost node comes back."""
    run = RunDirectory(config["train"]["output_dir"])
    with Ranks(config, 1, failpoints=cut_off_in, launcher=job(0)) as lost:
        lost.wait_until_held(0)
        finish(resumed(config), 1, launcher=job(1))
        left, about, saved = left_by(config), run.read(), steps_saved(config)
        assert (about["status"], about["job_id"], about["restart_count"]) == ("finished", "77", 1)
        go_on(lost)
        assert lost.wait() == [1]
    assert "LockLost" in lost.output()
    assert (left_by(config), run.read(), steps_saved(config)) == (left, about, saved)


def test_an_earlier_start_of_a_job_does_not_disturb_a_later_one(config: Config) -> None:
    with Ranks(config, 1, failpoints="train.step=stop@2", launcher=job(1)) as later:
        later.wait_until_held(0)
        with Ranks(resumed(config), 1, launcher=job(0)) as earlier:
            assert earlier.wait() == [2]
        assert "(Slurm job 77, restart 1), which is running" in earlier.output()
