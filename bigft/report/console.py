"""Events as plain lines, for logs and pipes; the wording is shared with the progress bar."""

from __future__ import annotations

from collections.abc import Callable
from typing import TextIO

from bigft.runtime.events import Event
from bigft.runtime.proc import CONTENDED

LARGE = 1e6  # from which on decimals tell nothing


def number(value: float, decimals: int) -> str:
    """With so many decimals; one that is too small to show two digits by them, or very large, with
    the digits that it has."""
    if value == 0 or 10 ** (1 - decimals) <= abs(value) < LARGE:
        return f"{value:.{decimals}f}"
    return f"{value:.2g}"


# What a "log" event shows, in this order: (key, how).
LOG_FIELDS: dict[str, Callable[[float], str]] = {
    "epoch": lambda value: f"epoch {number(value, 2)}",
    "loss": lambda value: f"loss {number(value, 4)}",
    "learning_rate": "lr {:.1e}".format,
    "grad_norm": lambda value: f"grad_norm {number(value, 1)}",
    "tokens_per_second": lambda value: (
        f"{value:,.0f} tokens/s" if value >= 10 else f"{value:.2g} tokens/s"
    ),
    "cpu_wait": lambda value: f"cpu_wait {value:.0%}" if value >= CONTENDED else "",
}
START_FIELDS: dict[str, Callable[[float], str]] = {
    "total_steps": "{:,} steps".format,
    "num_train_epochs": "{:g} epochs".format,
    "num_samples": "{:,} samples".format,
    "global_batch_size": "{:,} samples a step".format,
    "global_batch_tokens": "{:,} tokens a step".format,
    "world_size": "world size {}".format,
    "zero_stage": "ZeRO stage {}".format,
    "trainable_parameters": "{:,} trainable parameters".format,
}

SAMPLES = 8  # of a "nonfinite" event
EVAL_FIELDS = 5  # of an "eval" event: its scores come with the most telling first


class Pace:
    """How far the run is and how long it still takes, evaluations and saves included."""

    def __init__(self) -> None:
        self.total_steps = 0
        self.step = 0
        self.seconds_left: float | None = None
        self._since: tuple[float, int] | None = None  # time and step of the first log

    def __call__(self, event: Event) -> None:
        if event["event"] == "start":
            self.total_steps = event["total_steps"]
        elif event["event"] == "resume":
            self.step = event["step"]
        elif event["event"] == "log":
            self.step = event["step"]
            # From the first log on: the first steps hold the warm-up of everything.
            start, first = self._since = self._since or (event["time"], event["step"])
            if self.step > first:
                per_step = (event["time"] - start) / (self.step - first)
                self.seconds_left = per_step * (self.total_steps - self.step)


class Console:
    """A sink that writes one line per event to `stream`."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._pace = Pace()

    def __call__(self, event: Event) -> None:
        self._pace(event)
        line = log_line(event, self._pace) if event["event"] == "log" else describe(event)
        if line:
            print(line, file=self._stream, flush=True)


def log_line(event: Event, pace: Pace) -> str:
    parts = [f"step {event['step']}/{pace.total_steps}", *shown(event, LOG_FIELDS)]
    if pace.seconds_left is not None:
        parts.append(f"{duration(pace.seconds_left)} left")
    return "  ".join(parts)


def describe(event: Event) -> str:
    """Every event but "log" in words; "" for events that are not for people."""
    match event["event"]:
        case "start":
            return "training: " + ", ".join(shown(event, START_FIELDS))
        case "resume" if event["step"] > 0:
            return f"going on from step {event['step']}" + (
                f" ({event['path']})" if event.get("path") else ""
            )
        case "eval":
            telling = list(scores(event).items())[:EVAL_FIELDS]
            numbers = [f"{key} {number(value, 4)}" for key, value in telling]
            return "  ".join([f"{event['split']} at step {event['step']}", *numbers])
        case "checkpoint":
            return f"saved {event['path']} in {duration(event['seconds'])}"
        case "save_failed":
            return f"step {event['step']} was NOT saved: {event['why']}"
        case "nonfinite":
            samples = ", ".join(event["samples"][:SAMPLES]) or "unknown"
            return (
                f"step {event['step']} is skipped: its {event['what']} is not finite; "
                f"samples: {samples}"
            )
        case "cpu_contention":
            return (
                f"slowed down: the run's threads waited {event['cpu_wait']:.0%} of their time for "
                "cores that other processes used, or other ranks; `top` shows which"
            )
        case "signal":
            return f"{event['signal']}: saving and stopping"
        case "end":
            step = f" at step {event['step']}" if "step" in event else ""
            took = f" after {duration(event['train_runtime'])}" if "train_runtime" in event else ""
            why = f": {event['why']}" if event.get("why") else ""
            warning = f"; {event['warning']}" if event.get("warning") else ""
            return f"{event['status']}{step}{took}{why}{warning}"
        case "report":
            title = f"{event['split']}, measured with the weights of step {event['step']}:"
            return f"{title}\n{event['text']}"
        case "note":
            return str(event["text"])
        case _:
            return ""


def scores(event: Event) -> dict[str, float]:
    """The metrics of an "eval" event: eval_* of the validation set, test_* of the test set."""
    return {
        key: value
        for key, value in event.items()
        if key.startswith(("eval_", "test_")) and is_number(value)
    }


def shown(event: Event, fields: dict[str, Callable[[float], str]]) -> list[str]:
    """The numbers of the event that are there, formatted."""
    texts = [form(event[key]) for key, form in fields.items() if is_number(event.get(key))]
    return [text for text in texts if text]


def is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def duration(seconds: float) -> str:
    """ "0.8s", "42s", "2m10s", "3h05m", "2d04h": two units at most."""
    if seconds < 10:
        return f"{seconds:.1f}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes == 0:
        return f"{rest}s"
    hours, minutes = divmod(minutes, 60)
    if hours == 0:
        return f"{minutes}m{rest:02d}s"
    days, hours = divmod(hours, 24)
    return f"{hours}h{minutes:02d}m" if days == 0 else f"{days}d{hours:02d}h"
