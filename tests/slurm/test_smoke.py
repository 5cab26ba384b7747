"""`sbatch slurm/finetune.sh` on a real Slurm: a job of two nodes runs and finishes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from slurm.harness import STEPS, Job, Run

pytestmark = pytest.mark.slurm


def test_a_job_of_two_nodes_finishes(
    uninterrupted: Callable[[str, int], tuple[Run, Job]],
) -> None:
    run, job = uninterrupted("ner", 2)
    assert job.state() == "COMPLETED"
    assert job.last_line() == f"bigft: finished ({run.directory.path})"
    assert run.directory.read()["status"] == "finished"
    assert [*run.losses()] == [*range(1, STEPS + 1)]
    assert run.directory.model.is_dir()
