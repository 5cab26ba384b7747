"""The run directory: what a run leaves behind, who holds it, and how the run ended."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from bigft.config.errors import BadInput, Problem
from bigft.config.fields import RUN_FILE, RUN_MODEL
from bigft.runtime.events import read_metrics, strict_json
from bigft.runtime.local_ranks import Ended
from bigft.runtime.lock import Holder, Lock, LockLost
from bigft.runtime.run_state import MAX_CRASHES, RunState

CHECKPOINT_NAME = re.compile(r"checkpoint-(0|[1-9][0-9]*)")


class RunDirectory:
    """Paths and small files of one run; the first rank writes them, every verb reads them."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.yaml"
        self.run_file = self.path / RUN_FILE
        self.metrics_file = self.path / "metrics.jsonl"
        self.results_file = self.path / "all_results.json"
        self.logs = self.path / "logs"
        self.model = self.path / RUN_MODEL
        self._lock = Lock(self.path)

    def log_file(self, rank: int) -> Path:
        return self.logs / f"rank-{rank:05d}.log"

    def create(self) -> None:
        """Makes the directory, private to the user if it is new.

        Raises: BadInput naming train.output_dir if nothing can be written there.
        """
        with self._writable():
            if not self.path.is_dir():
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.mkdir(mode=0o700, exist_ok=True)
            self.logs.mkdir(exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass

    def nearest(self) -> Path:
        """The directory, or as long as there is none the nearest above it that exists."""
        return next(place for place in (self.path, *self.path.absolute().parents) if place.exists())

    # -- who holds it ------------------------------------------------------------------------

    def check(self, *, resume: bool | str | Path) -> None:
        """Raises what `claim` surely would raise; neither writes nor waits."""
        place = self.nearest()
        if not place.is_dir():
            raise self._unwritable(os.strerror(errno.ENOTDIR))
        if not os.access(place, os.W_OK | os.X_OK):
            raise self._unwritable(os.strerror(errno.EACCES))
        with self._writable():
            self._lock.check()
        self._refuse_to_lose(self.observe_if_begun(), resume)

    def claim(self, *, resume: bool | str | Path, **facts: Any) -> dict[str, Any]:
        """Makes this process the run's holder and returns the new content of run.json.

        resume: train.resume_from_checkpoint; a run that goes on keeps its id and its facts.
        facts: what else run.json is to hold (versions, world_size, fingerprints, global_batch …).
        The claim of a parent process counts for its children: ranks of `bigft train` may claim
        the directory that it prepared. A claim ends with `release` or with the process.
        Raises: BadInput if another run holds the directory, if it holds a finished run or committed
        checkpoints that were not asked to be continued, or if the run crashed MAX_CRASHES times in
        a row without progress and `resume` names no checkpoint.
        """
        self.create()
        with self._writable():
            holder, is_new = self._lock.acquire()
        try:
            run = self._truth(is_held=not is_new) if self.run_file.exists() else {}
            self._refuse_to_lose(run, resume)
            if run.get("status") != "running":  # else our parent has started it
                run = self._started(run, resume, holder)
            run |= facts
            self._replace(self.run_file, strict_json(run, indent=2))
        except BaseException:
            self.release()
            raise
        return run

    def require_ours(self) -> None:
        """Raises LockLost unless the claim still stands: right before anything is published."""
        try:
            if self._lock.is_ours():
                return
            holder = self._lock.holder()
        except BadInput as strange:  # a LOCK that is none
            raise LockLost(str(strange)) from None
        what = f"was taken over by {holder}" if holder else "has no LOCK"
        raise LockLost(f"{self.path} {what}")

    def is_ours(self) -> bool:
        """The same as an answer."""
        try:
            self.require_ours()
        except LockLost:
            return False
        return True

    def is_claimed(self) -> bool:
        """Whether a claim of this launch stands, of this process or of its parent."""
        return self._lock.holder() is not None and self.is_ours()

    def is_free(self) -> bool:
        """Whether a claim would not have to wait for, or be refused because of, another run."""
        holder = self._lock.holder()
        return holder is None or holder.is_gone or holder.is_us

    def release(self) -> None:
        """Gives the directory up; a parent's claim stays."""
        self._lock.release()

    # -- run.json ----------------------------------------------------------------------------

    def update(self, **facts: Any) -> None:
        """Changes the given keys of run.json, atomically: status, why, exit_code, ..."""
        run = {**self.read(), **facts, "updated": time.time()}
        self._replace(self.run_file, strict_json(run, indent=2))

    def crashed(self, why: str, exit_code: int = 1) -> str:
        """Records an end that nobody asked for; the status that the run has now.

        That is "resumable" if a checkpoint is committed and the run has not crashed MAX_CRASHES
        times without progress, else "failed". Nothing is written where another run holds the
        directory by now. May be called again for the same end by one who knows better.
        """
        run = self._state(self.read()).crashed(why, exit_code)
        self._record(run)
        return str(run["status"])

    def _record(self, run: dict[str, Any]) -> None:
        """Of a crash nothing is written where another run holds the directory by now."""
        with contextlib.suppress(*([LockLost] if run["crashed"] else [])):
            self.update(**run)

    def interrupted(self) -> str:
        """Records Ctrl-C: nothing was saved, but it is no crash. Returns the run's status."""
        run = self._state(self.read()).interrupted()
        self.update(**run)
        return str(run["status"])

    def ranks_ended(self, ended: Ended) -> None:
        """What the parent of the ranks saw, where they could not tell it themselves."""
        before = self.read()
        after = self._state(before).ranks_ended(ended)
        if after != before:
            self._record(after)

    def read(self) -> dict[str, Any]:
        """run.json as it stands. Raises: BadInput if this is no run directory."""
        try:
            run = json.loads(self.run_file.read_bytes())
        except OSError as error:
            raise BadInput(
                Problem(
                    str(self.path),
                    f"no run directory: cannot read run.json ({error.strerror})",
                    "give the train.output_dir of a run",
                )
            ) from error
        except ValueError as error:
            raise BadInput(Problem(str(self.run_file), f"not valid JSON ({error})")) from error
        if not isinstance(run, dict) or "status" not in run:
            raise BadInput(Problem(str(self.run_file), "not the run.json of a bigft run"))
        return run

    def is_finished(self) -> bool:
        return self.run_file.exists() and self.read()["status"] == "finished"

    def observe(self) -> dict[str, Any]:
        """run.json with the truth about a run whose process is gone without a word.

        A "running" run that nobody holds has crashed. A holder on another host is believed to live.
        """
        holder = self._lock.holder()
        return self._truth(is_held=holder is not None and not holder.is_gone)

    def observe_if_begun(self) -> dict[str, Any]:
        """The same; {} as long as no run has begun here."""
        return self.observe() if self.run_file.exists() else {}

    def write_config(self, yaml: str) -> None:
        self._replace(self.config_file, yaml)

    def write_results(self, results: Mapping[str, Any]) -> None:
        """Adds train_*, eval_*, test_* values (transformers' spelling) to all_results.json."""
        merged = {**self.read_results(), **results}
        self._replace(self.results_file, strict_json(dict(sorted(merged.items())), indent=4))

    def read_results(self) -> dict[str, Any]:
        if not self.results_file.exists():
            return {}
        results: dict[str, Any] = json.loads(self.results_file.read_bytes())
        return results

    def checkpoints(self) -> list[tuple[int, Path]]:
        """(step, path) of every committed checkpoint, oldest first; not yet verified."""
        return [(step, path) for step, path in self.named_checkpoints() if _committed(path)]

    def named_checkpoints(self) -> list[tuple[int, Path]]:
        """The same of all that is named as a checkpoint, committed or not."""
        paths = self.path.glob("checkpoint-*")
        named = ((CHECKPOINT_NAME.fullmatch(path.name), path) for path in paths)
        return sorted((int(name[1]), path) for name, path in named if name)

    def holds(self, checkpoint: Path) -> bool:
        """Whether it is this run's; a run that begins with another's branches off."""
        return checkpoint.resolve().parent == self.path.resolve()

    def last_step(self) -> int:
        """The last step that metrics.jsonl knows of; 0 before the first."""
        events = read_metrics(self.metrics_file)
        return next((event["step"] for event in reversed(events) if "step" in event), 0)

    @property
    def latest_checkpoint(self) -> Path | None:
        checkpoints = self.checkpoints()
        return checkpoints[-1][1] if checkpoints else None

    @property
    def best(self) -> Path | None:
        """The checkpoint that `best` points to, if there is one."""
        link = self.path / "best"
        return link.resolve() if link.is_dir() else None

    @property
    def branched_from(self) -> Path | None:
        """The other run's checkpoint that this one was told to begin with."""
        return self._origin(self.read()) if self.run_file.exists() else None

    def _state(self, run: Mapping[str, Any]) -> RunState:
        return RunState(run, self._newest_step(), self._origin(run) is not None)

    def _started(
        self, before: dict[str, Any], resume: bool | str | Path, holder: Holder
    ) -> dict[str, Any]:
        run_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}"
        by = {
            "host": holder.host,
            "pid": holder.pid,
            "job_id": holder.job_id,
            "restart_count": holder.restart_count,
        }
        return self._state(before).started(resume, run_id, time.time(), by)

    def _origin(self, run: Mapping[str, Any]) -> Path | None:
        named = run.get("began_with")
        return None if named is None or self.holds(Path(named)) else Path(named)

    def _refuse_to_lose(self, before: Mapping[str, Any], resume: bool | str | Path) -> None:
        if not before or before["status"] == "running":
            return
        held = None
        if before["status"] == "finished":
            held = "a finished run"
        elif self.checkpoints():
            held = "the checkpoints of an unfinished run"
        if held and not resume:
            raise self._refusal(
                f"{self.path} holds {held}",
                "choose another train.output_dir or set train.resume_from_checkpoint=true",
            )
        if resume is True and held == "a finished run" and not self._state(before).has_begun:
            raise self._refusal(
                f"{self.path} holds {held}, and no checkpoint to go on from",
                "choose another train.output_dir",
            )
        if resume is True and self._state(before).in_a_row("crashes") >= MAX_CRASHES:
            raise BadInput(
                Problem(
                    "train.resume_from_checkpoint",
                    f"{self.path} crashed {before['crashes']} times in a row without a newer "
                    f"checkpoint, the last time after step {self.last_step()}: {before['why']}",
                    f"fix the cause, then {self._how_to_insist()}",
                )
            )

    def _how_to_insist(self) -> str:
        if newest := self.latest_checkpoint or self.branched_from:
            return f"name the checkpoint: train.resume_from_checkpoint={newest}"
        return "start anew: train.resume_from_checkpoint=false"

    def _truth(self, is_held: bool) -> dict[str, Any]:
        return self._state(self.read()).observed(is_held)

    def idle_starts(self) -> int:
        """Starts in a row, the last one among them, that found the same newest checkpoint; 0 if the
        last one has made a newer one."""
        return self._state(self.read()).in_a_row("starts")

    def _newest_step(self) -> int:
        checkpoints = self.checkpoints()
        return checkpoints[-1][0] if checkpoints else -1

    @contextlib.contextmanager
    def _writable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._unwritable(str(error.strerror)) from error

    def _unwritable(self, why: str) -> BadInput:
        fix = "choose a directory that you may write to"
        return self._refusal(f"cannot write to {self.path}: {why}", fix)

    def _refusal(self, what: str, fix: str) -> BadInput:
        return BadInput(Problem("train.output_dir", what, fix))

    def _replace(self, path: Path, text: str) -> None:
        """Old content or new, never half: a reader or a crash may come at any moment.

        Raises: LockLost if another run holds the directory by now.
        """
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("w", encoding="utf-8") as file:
                file.write(text if text.endswith("\n") else text + "\n")
                file.flush()
                os.fsync(file.fileno())
            self.require_ours()
            os.replace(temporary, path)
        except (OSError, LockLost):
            temporary.unlink(missing_ok=True)
            raise


def _committed(checkpoint: Path) -> bool:
    return not checkpoint.is_symlink() and (checkpoint / "COMMIT").is_file()
