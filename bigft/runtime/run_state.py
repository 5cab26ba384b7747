"""How a run stands and what becomes of that: the content of run.json, without the file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bigft.config.exit_codes import EXIT_HUNG, EXIT_INTERRUPTED, EXIT_RESUMABLE
from bigft.runtime.local_ranks import Ended

MAX_CRASHES = 3  # starts in a row without progress, after which a run does not go on by itself


@dataclass(frozen=True, slots=True)
class RunState:
    """Every method answers with the new content and changes nothing.

    content: of run.json; {} before the first start. Keys that no method knows stay.
    newest: the step of the newest committed checkpoint; -1: there is none.
    has_origin: whether the checkpoint of another run, which this one branched off from, is there.
    """

    content: Mapping[str, Any]
    newest: int = -1
    has_origin: bool = False

    @property
    def has_begun(self) -> bool:
        """Whether there is anything to go on from."""
        return self.newest >= 0 or self.has_origin

    def in_a_row(self, what: str, more: int = 0) -> int:
        """what: "crashes" or "starts" without progress, `more` than so far; 0 once there is a newer
        checkpoint than at the start."""
        if self.newest > self.content.get("newest_at_start", -1):
            return 0
        return int(self.content.get(what, 0)) + more

    def started(
        self, resume: bool | str | Path, run_id: str, now: float, holder: Mapping[str, Any]
    ) -> dict[str, Any]:
        """resume: train.resume_from_checkpoint; a run that goes on keeps its id and its facts.
        now: time.time().  holder: host, process and job that hold the directory."""
        goes_on_by_itself = resume is True
        return {
            "run_id": run_id,
            "started": now,
            **(self.content if resume else {}),
            "began_with": self._began_with(resume),
            "status": "running",
            "why": "",
            "exit_code": None,
            # Of starts in a row without progress: without a newer checkpoint than the newest one
            # they found. Whoever names a checkpoint has looked at why.
            "crashes": self.in_a_row("crashes") if goes_on_by_itself else 0,
            "crashed": False,
            "newest_at_start": self.newest,
            "starts": self.in_a_row("starts") + 1 if goes_on_by_itself else 1,
            **holder,
            "updated": now,
        }

    def crashed(self, why: str, exit_code: int | None = None) -> dict[str, Any]:
        """An end that nobody asked for: resumable where there is something to go on from and it did
        not come MAX_CRASHES times in a row, else failed. An end that is told twice counts once.
        exit_code: None: not known."""
        crashes = self.in_a_row("crashes", 0 if self.content.get("crashed") else 1)
        goes_on = self.has_begun and crashes < MAX_CRASHES
        status = "resumable" if goes_on else "failed"
        changed = {"status": status, "why": why, "crashes": crashes, "crashed": True}
        if exit_code is not None:
            changed["exit_code"] = exit_code
        return {**self.content, **changed}

    def interrupted(self) -> dict[str, Any]:
        """Ctrl-C: nothing was saved, but it is no crash."""
        status = "resumable" if self.has_begun else "failed"
        return {**self.content, "status": status, "why": "Ctrl-C", "exit_code": EXIT_INTERRUPTED}

    def ranks_ended(self, ended: Ended) -> dict[str, Any]:
        """What the parent of the ranks saw, where they could not tell it themselves: a rank that
        was killed says nothing, and the others only that a connection was closed."""
        silent = self.content["status"] == "running"
        hearsay = self.content["crashed"] and ended.rank > 0 and ended.code != EXIT_HUNG
        if ended.code == EXIT_RESUMABLE and silent:
            stopped = {"status": "resumable", "why": "stopped", "exit_code": ended.code}
            return {**self.content, **stopped}
        if ended.code == EXIT_INTERRUPTED and silent:
            return self.interrupted()
        if ended.why and (silent or hearsay):
            return self.crashed(ended.why, ended.code)
        return dict(self.content)

    def observed(self, is_held: bool) -> dict[str, Any]:
        """The truth about a run that says that it is running. is_held: by a process that lives."""
        if self.content["status"] != "running" or is_held:
            return dict(self.content)
        return self.crashed(f"died: process {self.content.get('pid')} is gone")

    def _began_with(self, resume: bool | str | Path) -> str | None:
        """The checkpoint that was named last; where it is now, since `best` may point elsewhere."""
        if resume is False:
            return None
        return self.content.get("began_with") if resume is True else str(Path(resume).resolve())
