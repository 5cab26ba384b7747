"""What happens in a run, as a stream of events; progress bars, trackers and files are its sinks."""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

Event = dict[str, Any]
Sink = Callable[[Event], None]

# Events that hold the measurement of a step, so that doing the step again replaces them.
MEASUREMENTS = ("log", "eval")


class EventStream:
    """Hands every event to the attached sinks, in the order of their attachment.

    Sinks are attached on rank 0 only: on the other ranks `emit` returns at once. The emitter ends
    the stream with an "end" event on every way out, which is where sinks flush and close.
    """

    def __init__(self) -> None:
        self._sinks: list[Sink] = []

    def attach(self, sink: Sink) -> None:
        self._sinks.append(sink)

    def emit(self, event: str, **fields: Any) -> None:
        """Passes {"event": event, "time": unix seconds, **fields} on; fields are JSON values.

        A sink that raises is detached with one warning: a tracker must never end a training run.
        """
        if not self._sinks:
            return
        record = {"event": event, "time": time.time(), **fields}
        for sink in tuple(self._sinks):
            try:
                sink(record)
            except Exception:
                self._sinks.remove(sink)
                logger.warning(
                    "%s failed at the event %r; it gets no more events and training goes on",
                    getattr(sink, "__qualname__", type(sink).__qualname__),
                    event,
                    exc_info=True,
                )


def strict_json(record: Mapping[str, Any], indent: int | None = None) -> str:
    """The record as JSON: floats in full precision, paths as text, NaN and infinities as null.

    JSON has no NaN, so the names of the values replaced stand under the key "nonfinite".
    """
    nonfinite: list[str] = []

    def plain(value: Any, name: str) -> Any:
        if isinstance(value, Mapping):
            prefix = f"{name}." if name else ""
            return {str(key): plain(item, f"{prefix}{key}") for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(item, f"{name}[{index}]") for index, item in enumerate(value)]
        if isinstance(value, os.PathLike):
            return os.fspath(value)
        if hasattr(value, "item"):  # a scalar of numpy or torch, as metrics return them
            value = value.item()
        if isinstance(value, float) and not math.isfinite(value):
            nonfinite.append(name)
            return None
        return value

    body = plain(record, "")
    if nonfinite:
        body["nonfinite"] = nonfinite
    return json.dumps(body, allow_nan=False, indent=indent)


class MetricsFile:
    """A sink that appends one JSON object per line to `path`, at once.

    Lines that a full disk does not take wait for the next event.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("a+b", buffering=0)
        self._unwritten = b""
        self._is_told = False
        if self._file.tell() > 0:
            self._file.seek(-1, os.SEEK_END)
            if self._file.read(1) != b"\n":
                # Killed while writing: a new line keeps the torn one from swallowing the next.
                self._unwritten = b"\n"

    def __call__(self, event: Event) -> None:
        self._unwritten += strict_json(event).encode() + b"\n"
        try:
            while self._unwritten:
                self._unwritten = self._unwritten[self._file.write(self._unwritten) :]
        except OSError as error:
            if not self._is_told:
                logger.warning("%s: %s; its lines wait in memory", self._path, error.strerror)
        self._is_told = bool(self._unwritten)


def read_metrics(path: Path) -> list[Event]:
    """The events of metrics.jsonl as one uninterrupted run would have written them.

    After {"event": "resume", "step": s}, measurements of steps beyond s that came before it are
    dropped (starting over is a resume at step 0); of two measurements of one step and split the
    later one counts. Torn lines are skipped; a file that does not exist yet holds no events.
    """
    if not path.exists():
        return []
    kept: dict[tuple[Any, ...], Event] = {}
    for number, line in enumerate(path.read_bytes().split(b"\n")):
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if not isinstance(event, dict) or "event" not in event:
            continue  # the tail of a torn line may be JSON by itself
        if event["event"] == "resume":
            kept = {key: old for key, old in kept.items() if not _beyond(old, event["step"])}
        key: tuple[Any, ...] = (number,)
        if event["event"] in MEASUREMENTS:
            key = (event["event"], event.get("split"), event["step"])
        kept.pop(key, None)
        kept[key] = event
    return list(kept.values())


def _beyond(event: Event, step: int) -> bool:
    return event["event"] in MEASUREMENTS and event["step"] > step
