"""The run directory: what a run leaves behind, and who holds it."""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import socket
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bigft.config.errors import BadInput, Problem
from bigft.runtime.events import strict_json

CHECKPOINT_NAME = re.compile(r"checkpoint-(\d+)")


class RunDirectory:
    """Paths and small files of one run; the first rank writes them, every verb reads them."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self.config_file = self.path / "config.yaml"
        self.run_file = self.path / "run.json"
        self.metrics_file = self.path / "metrics.jsonl"
        self.results_file = self.path / "all_results.json"
        self.logs = self.path / "logs"
        self.model = self.path / "model"

    def log_file(self, rank: int) -> Path:
        return self.logs / f"rank-{rank:05d}.log"

    def create(self) -> None:
        """Makes the directory, private to the user if it is new.

        Raises: BadInput naming train.output_dir if nothing can be written there.
        """
        try:
            if not self.path.is_dir():
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self.path.mkdir(mode=0o700, exist_ok=True)
            self.logs.mkdir(exist_ok=True)
            with tempfile.TemporaryFile(dir=self.path):
                pass
        except OSError as error:
            raise self._unwritable(str(error.strerror)) from error

    def nearest(self) -> Path:
        """The directory, or as long as there is none the nearest above it that exists."""
        return next(place for place in (self.path, *self.path.absolute().parents) if place.exists())

    def check(self, *, resume: bool) -> None:
        """Raises what `claim` would raise, and writes nothing."""
        place = self.nearest()
        if not place.is_dir():
            raise self._unwritable(os.strerror(errno.ENOTDIR))
        if not os.access(place, os.W_OK | os.X_OK):
            raise self._unwritable(os.strerror(errno.EACCES))
        self._before(resume)

    def claim(self, *, resume: bool, **facts: Any) -> dict[str, Any]:
        """Makes this process the run's holder and returns the new content of run.json.

        facts: what else run.json is to hold (versions, world_size, fingerprints, global_batch …).
        resume: train.resume_from_checkpoint; a run that goes on keeps its id and its facts.
        The claim of a parent process counts for its children: ranks of `bigft train` may claim
        the directory that it prepared.
        Raises: BadInput if a living process of this host holds the directory, or if it holds a
        finished run or committed checkpoints that were not asked to be continued.
        """
        self.create()
        before, inherited = self._before(resume)
        now = time.time()
        run = {
            "run_id": f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}",
            "started": now,
            **(before if resume or inherited else {}),
            **facts,
            "status": "running",
            "why": "",
            "exit_code": None,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "pid_started": _start_of(os.getpid()),
            "updated": now,
        }
        self._replace(self.run_file, strict_json(run, indent=2))
        return run

    def update(self, **facts: Any) -> None:
        """Changes the given keys of run.json, atomically: status, why, exit_code, ..."""
        run = {**self.read(), **facts, "updated": time.time()}
        self._replace(self.run_file, strict_json(run, indent=2))

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

    def observe(self) -> dict[str, Any]:
        """run.json with the truth about a run whose process is gone without a word.

        A "running" run of this host whose process is dead is "resumable" if a checkpoint is
        committed, else "failed". Of other hosts' processes nothing can be known from here.
        """
        run = self.read()
        here = run.get("host") == socket.gethostname()
        if run["status"] == "running" and here and not _holder_lives(run):
            run["status"] = "resumable" if self.checkpoints() else "failed"
            run["why"] = f"died: process {run.get('pid')} is gone"
        return run

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
        found = []
        for path in self.path.glob("checkpoint-*"):
            name = CHECKPOINT_NAME.fullmatch(path.name)
            if name and (path / "COMMIT").is_file():
                found.append((int(name[1]), path))
        return sorted(found)

    @property
    def latest_checkpoint(self) -> Path | None:
        checkpoints = self.checkpoints()
        return checkpoints[-1][1] if checkpoints else None

    @property
    def best(self) -> Path | None:
        """The checkpoint that `best` points to, if there is one."""
        link = self.path / "best"
        return link.resolve() if link.is_dir() else None

    def _before(self, resume: bool) -> tuple[dict[str, Any], bool]:
        """run.json as it was, and whether this process or its parent holds the directory."""
        before = self.read() if self.run_file.exists() else {}
        inherited = _holder_lives(before) and before["pid"] in (os.getpid(), os.getppid())
        if not inherited:
            self._refuse_if_taken(before, resume)
        return before, inherited

    def _refuse_if_taken(self, run: dict[str, Any], resume: bool) -> None:
        if _holder_lives(run):
            raise self._refusal(
                f"{self.path} is held by process {run['pid']} on {run['host']}, which is running",
                "wait for it, stop it, or choose another train.output_dir",
            )
        held = None
        if run.get("status") == "finished":
            held = "a finished run"
        elif self.checkpoints():
            held = "the checkpoints of an unfinished run"
        if held and not resume:
            raise self._refusal(
                f"{self.path} holds {held}",
                "choose another train.output_dir or set train.resume_from_checkpoint=true",
            )

    def _unwritable(self, why: str) -> BadInput:
        mend = "choose a directory that you may write to"
        return self._refusal(f"cannot write to {self.path}: {why}", mend)

    def _refusal(self, what: str, mend: str) -> BadInput:
        return BadInput(Problem("train.output_dir", what, mend))

    def _replace(self, path: Path, text: str) -> None:
        """Old content or new, never half: a reader or a crash may come at any moment."""
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text if text.endswith("\n") else text + "\n")
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)


def _holder_lives(run: Mapping[str, Any]) -> bool:
    """Whether the process that run.json names runs on this host.

    Its start time is compared too: process ids are reused, in containers all the time.
    """
    return (
        run.get("status") == "running"
        and run.get("host") == socket.gethostname()
        and _start_of(run["pid"]) == run["pid_started"]
    )


def _start_of(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None if it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name, in parentheses, may hold spaces and parentheses itself.
    state, *fields = stat.rpartition(")")[2].split()
    return None if state == "Z" else int(fields[18])
