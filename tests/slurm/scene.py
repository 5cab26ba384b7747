"""A job that runs, what happens to it, and how it must end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

from slurm.harness import ENDED, SAVE_STEPS, Cluster, Job, Run, assert_same_bits


class Row(NamedTuple):
    """A line of the table in docs/reliability.md."""

    fault: str
    run: str
    last_line: str  # of the start that the fault met
    steps_lost: int
    seconds_to_start: float  # from the fault until Slurm starts the job again
    seconds: float  # from the fault to the first step after it
    bits: str = "equal"


class Scene:
    """`begin` a job, strike it, and see with `goes_on` that it ends as if nothing had been."""

    def __init__(
        self,
        cluster: Cluster,
        new_run: Callable[..., Run],
        uninterrupted: Callable[[str, int], tuple[Run, Job]],
        tell: Callable[[Row], None],
    ) -> None:
        self.cluster, self._new_run = cluster, new_run
        self._uninterrupted, self.tell = uninterrupted, tell

    def prepare(self, task: str, nodes: int) -> None:
        self.reference, _ = self._uninterrupted(task, nodes)
        self.what = f"{task}, {nodes} nodes"
        self.run = self._new_run(task, nodes)

    def begin(self, task: str, nodes: int, *options: str) -> None:
        self.prepare(task, nodes)
        self.job = self.cluster.submit(self.run, *options)

    def strike(self) -> None:
        """The fault happens now."""
        self.struck = time.time()

    def goes_on(self, fault: str, last_line: str, lost: int = 0) -> Row:
        """Waits until the job has finished; its run must be the uninterrupted one, bit for bit.
        lost: steps that may have been done again."""
        assert self.job.wait_for_state(*ENDED) == "COMPLETED", self.job.log()
        assert self.job.last_line() == f"bigft: finished ({self.run.directory.path})"
        assert_same_bits(self.run, self.reference)
        assert self.run.starts()[-1] >= SAVE_STEPS, "it began anew"
        assert self.run.steps_lost() <= lost
        started = round(self.job.started() - self.struck, 1)
        seconds = round(self.run.going_again() - self.struck, 1)
        row = Row(fault, self.what, last_line, self.run.steps_lost(), started, seconds)
        self.tell(row)
        return row
