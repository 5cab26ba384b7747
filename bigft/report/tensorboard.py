"""Measurements as TensorBoard scalars under <output_dir>/runs/<run_name>."""

from __future__ import annotations

from pathlib import Path

from bigft.config.errors import BadInput, Problem
from bigft.report.console import is_number, scores
from bigft.runtime.events import Event


class TensorBoard:
    """A sink that writes train/loss, train/learning_rate, eval/f1, … by step."""

    def __init__(self, output_dir: Path, run_name: str) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise BadInput(
                Problem(
                    "report.report_to",
                    "tensorboard is asked for but not installed",
                    "pip install 'bigft[tensorboard]' or take it out of report.report_to",
                )
            ) from error
        self._make_writer = SummaryWriter
        self._directory = str(output_dir / "runs" / run_name)
        self._writer = SummaryWriter(self._directory)

    def __call__(self, event: Event) -> None:
        match event["event"]:
            case "resume":
                # TensorBoard then forgets the points of steps that will be done again.
                self._writer.close()
                self._writer = self._make_writer(self._directory, purge_step=event["step"] + 1)
            case "log":
                for key, value in event.items():
                    if key not in ("step", "time") and is_number(value):
                        self._writer.add_scalar(f"train/{key}", value, event["step"])
            case "eval":
                for key, value in scores(event).items():
                    self._writer.add_scalar(key.replace("_", "/", 1), value, event["step"])
            case "end":
                self._writer.close()
