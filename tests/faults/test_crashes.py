"""A run that crashes at the same step again and again stops by itself after three restarts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from faults.harness import Config, Ranks, finish, resumed

from bigft.runtime.run_directory import RunDirectory

pytestmark = pytest.mark.distributed


def resumed_from(config: Config, checkpoint: Path) -> Config:
    return {**config, "train": {**config["train"], "resume_from_checkpoint": str(checkpoint)}}


def test_a_run_that_crashes_at_the_same_step_stops_after_three_restarts_without_progress(
    config_for: Callable[..., Config], write_data: Callable[..., Path]
) -> None:
    keys: dict[str, Any] = {
        "train__max_steps": 6,
        "train__save_strategy": "steps",
        "train__save_steps": 2,
    }
    config = config_for("run", write_data([3, 11, 1, 7]), **keys)
    run = RunDirectory(config["train"]["output_dir"])

    def crash(config: Config, at: str) -> tuple[str, int]:
        with Ranks(config, 1, failpoints=at) as ranks:
            assert ranks.wait() == [1], ranks.output()
        assert run.read()["why"] == "RuntimeError: failpoint train.step"
        return run.read()["status"], run.read()["crashes"]

    fifth, first_after_resume = "train.step=raise@5", "train.step=raise@1"
    assert crash(config, fifth) == ("resumable", 0), "it saved: that is progress"
    assert crash(resumed(config), first_after_resume) == ("resumable", 1)
    assert crash(resumed(config), first_after_resume) == ("resumable", 2)
    assert crash(resumed(config), first_after_resume) == ("failed", 3)

    with Ranks(resumed(config), 1) as refused:
        assert refused.wait() == [2]
    told = refused.output()
    assert "crashed 3 times in a row without a newer checkpoint" in told
    assert "the last time after step 4: RuntimeError: failpoint train.step" in told
    newest = run.path / "checkpoint-4"
    assert f"fix the cause, then name the checkpoint: train.resume_from_checkpoint={newest}" in told

    finish(resumed_from(config, newest), 1)
    assert (run.read()["status"], run.read()["crashes"]) == ("finished", 0)
