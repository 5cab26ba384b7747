"""The day that a run takes for today, on whatever day it goes on."""

from __future__ import annotations

from datetime import date
from pathlib import Path

from bigft.runtime.run_directory import RunDirectory


def clock_of(directory: RunDirectory) -> date:
    """The day of the run there. Raises BadInput if this is no run directory."""
    run = directory.read()
    if "clock" in run:
        return date.fromisoformat(run["clock"])
    # Of a version that did not write it.
    return date.fromtimestamp(run["started"]) if "started" in run else date.today()


def clock_for(directory: RunDirectory, resume: bool | str | Path) -> date:
    """The day of a run that is to start there: the present one, or, where it goes on or branches
    off, that of the run it goes on from.

    resume: train.resume_from_checkpoint.
    """
    if not isinstance(resume, bool):
        directory = RunDirectory(Path(resume).resolve().parent)
    # A run that this launch has claimed is the one that our parent process has prepared.
    goes_on = bool(resume) or directory.is_claimed()
    return clock_of(directory) if goes_on and directory.run_file.exists() else date.today()
