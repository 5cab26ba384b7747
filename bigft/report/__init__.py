"""Sinks of the event stream: what a person or a tracker sees of a run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bigft.report.console import Console
from bigft.report.progress import Progress
from bigft.report.tensorboard import TensorBoard
from bigft.runtime.events import EventStream, Sink

if TYPE_CHECKING:
    from bigft.config.sections import RunConfig

# The names of report.report_to: a tracker, made from the output directory and the run's name.
SINKS: dict[str, Callable[[Path, str], Sink]] = {
    "tensorboard": TensorBoard,
}


def attach_sinks(stream: EventStream, config: RunConfig, stdout_is_terminal: bool) -> None:
    """Attaches what report.progress and report.report_to ask for.

    Raises: BadInput if a tracker's package is missing.
    """
    progress = config.report.progress
    if progress == "auto":
        progress = "bar" if stdout_is_terminal else "lines"
    if progress != "none":
        stream.attach(Progress() if progress == "bar" else Console(sys.stdout))
    output_dir = Path(config.train.output_dir)
    for name in config.report.report_to:
        stream.attach(SINKS[name](output_dir, config.train.run_name or output_dir.name))
