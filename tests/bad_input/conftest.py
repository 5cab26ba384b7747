"""The answer to a run that a test has spoilt."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bigft.cli import main


@pytest.fixture
def refused(place: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """`refused("section.key=value", ..., verb=...)`: the lines of a refusal, exit code 2.

    Without a verb both `check` and `train` are asked: they say the same, and leave no run behind.
    """

    def ask(*words: str, config: str = "config.yaml", verb: str | None = None) -> list[str]:
        answers = []
        for name in [verb] if verb else ["check", "train"]:
            before = sorted(place.iterdir())
            assert main([name, config, *words, "--nproc", "1"]) == 2
            lines = capsys.readouterr().err.splitlines()
            answers.append([line for line in lines if not line.startswith("note: ")])
            assert {path.name for path in place.iterdir()} - {p.name for p in before} <= {"cache"}
        assert all(answer == answers[0] for answer in answers)
        return answers[0]

    return ask


@pytest.fixture
def notes(place: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """`notes("section.key=value", ...)`: what `check` remarks on a run that it accepts."""

    def ask(*words: str) -> list[str]:
        assert main(["check", "config.yaml", *words]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[-1] == "ok"
        return [line.removeprefix("note: ") for line in lines if line.startswith("note: ")]

    return ask
