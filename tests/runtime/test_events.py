"""The event stream and metrics.jsonl."""

from __future__ import annotations

import json
import logging
import math
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigft.runtime.events import Event, EventStream, MetricsFile, read_metrics, strict_json


def test_sinks_see_every_event_in_the_order_of_their_attachment() -> None:
    seen: list[tuple[str, Event]] = []
    stream = EventStream()
    stream.attach(lambda event: seen.append(("first", event)))
    stream.attach(lambda event: seen.append(("second", event)))
    stream.emit("log", step=1, loss=0.5)
    assert [name for name, _ in seen] == ["first", "second"]
    event = seen[0][1]
    assert event == {"event": "log", "time": event["time"], "step": 1, "loss": 0.5}


def test_a_failing_sink_is_detached_with_one_warning_and_the_others_go_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(event: Event) -> None:
        raise OSError("disk full")

    seen: list[int] = []
    stream = EventStream()
    stream.attach(broken)
    stream.attach(lambda event: seen.append(event["step"]))
    with caplog.at_level(logging.WARNING):
        stream.emit("log", step=1)
        stream.emit("log", step=2)
    assert seen == [1, 2]
    assert len(caplog.records) == 1
    assert "broken failed at the event 'log'" in caplog.text
    assert "disk full" in caplog.text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_float_survives_the_file_to_the_last_bit(value: float) -> None:
    assert json.loads(strict_json({"loss": value}))["loss"] == value


def test_nonfinite_values_become_null_and_are_named() -> None:
    line = strict_json(
        {"loss": math.nan, "eval": {"f1": [1.0, math.inf]}, "norm": numpy.float32("-inf")}
    )
    assert json.loads(line) == {
        "loss": None,
        "eval": {"f1": [1.0, None]},
        "norm": None,
        "nonfinite": ["loss", "eval.f1[1]", "norm"],
    }


def test_paths_and_numpy_scalars_are_written_as_plain_values() -> None:
    assert json.loads(strict_json({"path": Path("a b"), "n": numpy.int64(3)})) == {
        "path": "a b",
        "n": 3,
    }


def test_the_file_is_appended_to_across_restarts(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    MetricsFile(path)({"event": "start"})
    MetricsFile(path)({"event": "end"})
    assert path.read_text() == '{"event": "start"}\n{"event": "end"}\n'


@pytest.mark.parametrize("cut", range(1, 30))
def test_a_torn_last_line_costs_only_itself(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "metrics.jsonl"
    first = MetricsFile(path)
    first({"event": "log", "step": 1})
    first({"event": "log", "step": 2, "n": 12})
    path.write_bytes(path.read_bytes()[:-cut])
    MetricsFile(path)({"event": "log", "step": 3})
    # Without its newline alone the line is whole.
    assert [event["step"] for event in read_metrics(path)] == ([1, 2, 3] if cut == 1 else [1, 3])


@contextmanager
def room_for(num_bytes: int) -> Iterator[None]:
    """No file of this process may grow beyond: what a full disk does to a write."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_lines_wait_where_the_disk_is_full(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, steps = tmp_path / "metrics.jsonl", range(1, 6)
    stream = EventStream()
    stream.attach(MetricsFile(path))
    stream.emit("log", step=1)
    with caplog.at_level(logging.WARNING):
        with room_for(path.stat().st_size + 20):
            for step in steps[1:-1]:
                stream.emit("log", step=step)
            assert len(path.read_bytes().splitlines()) == 2  # the second is torn
        stream.emit("log", step=steps[-1])
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [*steps]
    assert len(caplog.records) == 1
    assert "metrics.jsonl: File too large; its lines wait in memory" in caplog.text


def write(path: Path, events: list[Event]) -> Path:
    sink = MetricsFile(path / "metrics.jsonl")
    for event in events:
        sink(event)
    return path / "metrics.jsonl"


def test_after_a_resume_the_later_lines_for_a_step_win(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        [
            {"event": "start", "total_steps": 4},
            {"event": "log", "step": 1, "attempt": 1},
            {"event": "log", "step": 2, "attempt": 1},
            {"event": "eval", "split": "eval", "step": 3, "attempt": 1},
            {"event": "log", "step": 3, "attempt": 1},
            {"event": "start", "total_steps": 4},
            {"event": "resume", "step": 1, "path": "checkpoint-1"},
            {"event": "log", "step": 2, "attempt": 2},
        ],
    )
    events = read_metrics(path)
    assert [(e["step"], e["attempt"]) for e in events if e["event"] == "log"] == [(1, 1), (2, 2)]
    assert not [e for e in events if e["event"] == "eval"]
    assert [e["event"] for e in events].count("start") == 2


def test_an_evaluation_done_again_at_the_step_resumed_from_replaces_the_first(
    tmp_path: Path,
) -> None:
    path = write(
        tmp_path,
        [
            {"event": "eval", "split": "eval", "step": 2, "attempt": 1},
            {"event": "eval", "split": "test", "step": 2, "attempt": 1},
            {"event": "resume", "step": 2},
            {"event": "eval", "split": "eval", "step": 2, "attempt": 2},
        ],
    )
    kept = [(e["split"], e["attempt"]) for e in read_metrics(path) if e["event"] == "eval"]
    assert kept == [("test", 1), ("eval", 2)]


def test_a_file_that_does_not_exist_yet_holds_no_events(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl") == []
