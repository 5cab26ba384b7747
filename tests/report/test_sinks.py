"""Which sinks a run gets."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from bigft import report
from bigft.config.sections import ReportConfig, Tracker
from bigft.report import SINKS, attach_sinks
from bigft.runtime.events import Event, EventStream


def test_every_tracker_of_the_schema_has_a_sink() -> None:
    assert set(SINKS) == set(get_args(Tracker))


@pytest.mark.parametrize(
    ("progress", "terminal", "expected"),
    [
        ("auto", True, ["bar"]),
        ("auto", False, ["lines"]),
        ("bar", False, ["bar"]),
        ("lines", True, ["lines"]),
        ("none", True, []),
    ],
)
def test_progress_is_shown_as_asked(
    progress: str, terminal: bool, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr(report, "Progress", lambda: lambda event: seen.append("bar"))
    monkeypatch.setattr(report, "Console", lambda stream: lambda event: seen.append("lines"))
    stream = EventStream()
    attach_sinks(stream, ReportConfig.model_validate({"progress": progress}), Path(), terminal)
    stream.emit("note", text="")
    assert seen == expected


def test_trackers_are_made_from_the_output_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Path, Event]] = []
    monkeypatch.setitem(SINKS, "tensorboard", lambda path: lambda e: seen.append((path, e)))
    stream = EventStream()
    config = ReportConfig.model_validate({"report_to": "tensorboard", "progress": "none"})
    attach_sinks(stream, config, tmp_path, False)
    stream.emit("note", text="x")
    assert [(path, event["text"]) for path, event in seen] == [(tmp_path, "x")]
