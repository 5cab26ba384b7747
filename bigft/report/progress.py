"""Events as a progress bar on a terminal; what should stay is printed above it."""

from __future__ import annotations

import atexit

import rich.progress
from rich.console import Console as Terminal

from bigft.report.console import LOG_FIELDS, Pace, describe, duration, shown
from bigft.runtime.events import Event


class Progress:
    """A sink that draws step, loss, learning rate, speed and the time left."""

    def __init__(self, terminal: Terminal | None = None) -> None:
        self._pace = Pace()
        self._bar = rich.progress.Progress(
            rich.progress.TextColumn("step {task.completed:.0f}/{task.total:.0f}"),
            rich.progress.BarColumn(),
            rich.progress.TextColumn("{task.fields[numbers]}", markup=False),
            console=terminal,
        )
        self._task = self._bar.add_task("training", total=0, numbers="")
        # A run that dies must give the cursor back.
        atexit.register(self._bar.stop)

    def __call__(self, event: Event) -> None:
        self._pace(event)
        text = "" if event["event"] == "log" else describe(event)
        if text:
            self._bar.console.print(text, markup=False, highlight=False)
        match event["event"]:
            case "start":
                self._bar.start()
            case "log":
                numbers = shown(event, LOG_FIELDS)
                if self._pace.seconds_left is not None:
                    numbers.append(f"{duration(self._pace.seconds_left)} left")
                self._bar.update(self._task, numbers="  ".join(numbers))
        self._bar.update(self._task, total=self._pace.total_steps, completed=self._pace.step)
        if event["event"] == "end":
            self._bar.stop()
