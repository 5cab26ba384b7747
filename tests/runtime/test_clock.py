"""The day of a run is the day it began, wherever and whenever it goes on."""

from __future__ import annotations

import json
import time
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from bigft.config.errors import BadInput
from bigft.runtime.clock import clock_for, clock_of
from bigft.runtime.run_directory import RunDirectory

BEGAN = date(2024, 7, 26)


def begun(path: Path, **facts: Any) -> RunDirectory:
    """A run that another process began."""
    directory = RunDirectory(path)
    directory.claim(resume=False, **facts)
    directory.release()
    return directory


def test_a_new_run_has_the_present_day(tmp_path: Path) -> None:
    for resume in (False, True):
        assert clock_for(RunDirectory(tmp_path / "new"), resume) == date.today()
    assert clock_for(begun(tmp_path / "old", clock=str(BEGAN)), False) == date.today()


def test_a_run_that_goes_on_keeps_its_day(tmp_path: Path) -> None:
    directory = begun(tmp_path / "run", clock=str(BEGAN))
    assert clock_for(directory, True) == clock_of(directory) == BEGAN
    directory.claim(resume=True, clock=str(clock_for(directory, True)))
    assert clock_of(directory) == BEGAN


def test_ranks_have_the_day_that_their_parent_prepared_the_data_on(tmp_path: Path) -> None:
    directory = RunDirectory(tmp_path / "run")
    directory.claim(resume=False, clock=str(BEGAN))
    assert clock_for(directory, False) == BEGAN


@pytest.mark.parametrize("by_link", [False, True])
def test_a_run_that_branches_off_has_the_other_runs_day(tmp_path: Path, by_link: bool) -> None:
    origin = begun(tmp_path / "origin", clock=str(BEGAN))
    checkpoint = origin.path / "checkpoint-3"
    checkpoint.mkdir()
    if by_link:
        (origin.path / "best").symlink_to("checkpoint-3")
        checkpoint = origin.path / "best"
    assert clock_for(RunDirectory(tmp_path / "branch"), str(checkpoint)) == BEGAN


def test_a_checkpoint_without_its_run_has_the_present_day(tmp_path: Path) -> None:
    assert clock_for(RunDirectory(tmp_path / "run"), tmp_path / "checkpoint-3") == date.today()


def test_an_old_run_has_the_day_it_was_started(tmp_path: Path) -> None:
    directory = begun(tmp_path / "run")
    run = json.loads(directory.run_file.read_text())
    noon = time.mktime((2024, 7, 26, 12, 0, 0, 0, 0, -1))
    directory.run_file.write_text(json.dumps(run | {"started": noon}))
    assert clock_of(directory) == clock_for(directory, True) == BEGAN


def test_what_is_no_run_has_no_day(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no run directory"):
        clock_of(RunDirectory(tmp_path))
