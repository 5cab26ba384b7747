"""Which sinks a run gets."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from bigft import report
from bigft.config.not_yet import NOT_YET
from bigft.config.sections import RunConfig, Tracker
from bigft.report import SINKS, attach_sinks
from bigft.runtime.events import Event, EventStream


def test_every_tracker_that_works_today_has_a_sink() -> None:
    trackers = get_args(Tracker)
    alive = {row.key: row.alive for row in NOT_YET}.get("report.report_to", trackers)
    assert set(SINKS) == set(alive) <= set(trackers)


def config(output_dir: str, **report: str) -> RunConfig:
    return RunConfig.model_validate(
        {
            "task": {"name": "token-classification"},
            "model": {"model_name_or_path": "bert-base-cased"},
            "train": {"output_dir": output_dir},
            "report": report,
        }
    )


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
    attach_sinks(stream, config(output_dir="run", progress=progress), terminal)
    stream.emit("note", text="")
    assert seen == expected


def test_trackers_are_made_from_the_output_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[Path, str, Event]] = []
    monkeypatch.setitem(
        SINKS, "tensorboard", lambda path, name: lambda event: seen.append((path, name, event))
    )
    stream = EventStream()
    report_to = {"report_to": "tensorboard", "progress": "none"}
    attach_sinks(stream, config(output_dir=str(tmp_path / "my-run"), **report_to), False)
    stream.emit("note", text="x")
    assert [(path, name) for path, name, _ in seen] == [(tmp_path / "my-run", "my-run")]
