"""How a run's state changes, without a directory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bigft.config.exit_codes import EXIT_HUNG, EXIT_INTERRUPTED, EXIT_RESUMABLE
from bigft.runtime.local_ranks import Ended
from bigft.runtime.run_state import MAX_CRASHES, RunState

HOLDER = {"host": "a", "pid": 7, "job_id": None, "restart_count": 0}


def started(before: dict[str, Any], resume: Any = True, newest: int = -1) -> dict[str, Any]:
    return RunState(before, newest).started(resume, "id-2", 5.0, HOLDER)


def test_a_first_start() -> None:
    run = started({}, resume=False)
    assert (run["run_id"], run["status"], run["starts"], run["crashes"]) == (
        "id-2",
        "running",
        1,
        0,
    )
    assert (run["began_with"], run["newest_at_start"], run["pid"]) == (None, -1, 7)


def test_a_run_that_goes_on_keeps_its_id_and_what_it_knows() -> None:
    before = {"run_id": "id-1", "started": 1.0, "clock": "2026-01-02", "status": "resumable"}
    run = started(before)
    kept = {name: run[name] for name in ("run_id", "started", "clock")}
    assert kept == {"run_id": "id-1", "started": 1.0, "clock": "2026-01-02"}
    assert "clock" not in started(before, resume=False)


@pytest.mark.parametrize(
    ("newest", "has_origin", "status"),
    [(-1, False, "failed"), (0, False, "resumable"), (-1, True, "resumable")],
)
def test_a_crash_is_resumable_where_there_is_something_to_go_on_from(
    newest: int, has_origin: bool, status: str
) -> None:
    run = started({}, resume=False, newest=newest)
    crashed = RunState(run, newest, has_origin).crashed("why", 1)
    assert (crashed["status"], crashed["crashes"], crashed["exit_code"]) == (status, 1, 1)
    assert RunState(run, newest, has_origin).interrupted()["status"] == status


def test_crashes_in_a_row_end_what_goes_on_by_itself() -> None:
    run, seen = started({}, resume=False, newest=3), []
    for _ in range(MAX_CRASHES):
        run = RunState(run, 3).crashed("again")
        seen.append((run["status"], run["crashes"]))
        run = started(run, newest=3)
    assert seen == [("resumable", 1), ("resumable", 2), ("failed", 3)]
    assert RunState(run, 3).in_a_row("starts") == 4
    assert RunState(run, 9).in_a_row("starts") == RunState(run, 9).in_a_row("crashes") == 0
    assert started(run, resume=Path("checkpoint-3"), newest=3)["crashes"] == 0


def test_an_end_that_is_told_twice_counts_once() -> None:
    once = RunState(started({}, newest=3), 3).crashed("a connection was closed", 1)
    twice = RunState(once, 3).crashed("rank 1 was killed", 137)
    assert (twice["crashes"], twice["why"], twice["exit_code"]) == (1, "rank 1 was killed", 137)


@pytest.mark.parametrize(
    ("ended", "changes"),
    [
        (Ended(EXIT_RESUMABLE), {"status": "resumable", "why": "stopped", "exit_code": 75}),
        (Ended(EXIT_INTERRUPTED), {"status": "resumable", "why": "Ctrl-C", "exit_code": 130}),
        (Ended(137, 1, "rank 1 died"), {"status": "resumable", "why": "rank 1 died"}),
        (Ended(0), {"status": "running", "why": ""}),
    ],
)
def test_what_the_parent_saw_of_silent_ranks(ended: Ended, changes: dict[str, Any]) -> None:
    run = started({}, newest=3)
    assert {key: RunState(run, 3).ranks_ended(ended)[key] for key in changes} == changes


@pytest.mark.parametrize(
    ("ended", "why"),
    [
        (Ended(137, 1, "rank 1 was killed"), "rank 1 was killed"),  # the first rank had hearsay
        (Ended(137, 0, "rank 0 was killed"), "a connection was closed"),
        (Ended(EXIT_HUNG, 1, "rank 1 hung"), "a connection was closed"),
    ],
)
def test_who_knows_better_of_a_crash(ended: Ended, why: str) -> None:
    run = RunState(started({}, newest=3), 3).crashed("a connection was closed", 1)
    assert RunState(run, 3).ranks_ended(ended)["why"] == why


def test_a_running_run_that_nobody_holds_has_crashed() -> None:
    run = started({}, newest=3)
    assert RunState(run, 3).observed(is_held=True) == run
    assert RunState(run, 3).observed(is_held=False)["why"] == "died: process 7 is gone"
    done = run | {"status": "finished"}
    assert RunState(done, 3).observed(is_held=False) == done
