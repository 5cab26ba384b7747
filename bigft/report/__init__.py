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
    from bigft.config.sections import ReportConfig

# The names of report.report_to: a tracker, made from the output directory.
SINKS: dict[str, Callable[[Path], Sink]] = {
    "tensorboard": TensorBoard,
}


def attach_sinks(
    stream: EventStream, config_report: ReportConfig, output_dir: Path, stdout_is_terminal: bool
) -> None:
    """Attaches what report.progress and report.report_to ask for.

    Raises: BadInput if a tracker's package is missing.
    """
    progress = config_report.progress
    if progress == "auto":
        progress = "bar" if stdout_is_terminal else "lines"
    if progress != "none":
        stream.attach(Progress() if progress == "bar" else Console(sys.stdout))
    for name in config_report.report_to:
        stream.attach(SINKS[name](output_dir))
