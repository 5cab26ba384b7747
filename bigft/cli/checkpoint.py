"""`bigft checkpoint list|verify RUN`: what a run can go on from, and whether it is whole."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

from bigft.config.errors import BadInput, Problem
from bigft.config.exit_codes import EXIT_FAILED
from bigft.runtime.run_directory import RunDirectory
from bigft.training.checkpoint.manifest import Damaged, Manifest


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "action",
        choices=["list", "verify"],
        help="list: what there is; verify: read every file and compare its hash",
    )
    parser.add_argument("run", type=Path, help="a run directory (train.output_dir)")
    parser.add_argument("step", type=int, nargs="?", help="verify that checkpoint alone")
    parser.add_argument("--json", action="store_true", help="one JSON array, for scripts")


def run(args: argparse.Namespace) -> int:
    """1 if a checkpoint is damaged, as far as was looked, else 0."""
    rows = collect(RunDirectory(args.run), reads_all=args.action == "verify", step=args.step)
    print(json.dumps(rows, indent=2) if args.json else as_text(rows))
    return EXIT_FAILED if any(row["problems"] for row in rows) else 0


def collect(directory: RunDirectory, reads_all: bool, step: int | None) -> list[dict[str, Any]]:
    """A row per checkpoint, oldest first, as JSON values.

    reads_all: every file is read, and a row without problems is "verified"; else COMMIT, MANIFEST
    and trainer.json are, and it is "committed".  step: that one alone.
    Raises BadInput if the path is no run directory, or the step has no checkpoint.
    """
    directory.read()
    found = directory.named_checkpoints()
    newest, best = directory.latest_checkpoint, directory.best
    rows = [
        {
            "step": at,
            "path": str(path),
            "newest": path == newest,
            "best": best is not None and path.resolve() == best,
            **seen,
        }
        for at, path in found
        if step in (None, at) and (seen := _seen(path, reads_all)) is not None
    ]
    if step is not None and not rows:
        steps = ", ".join(str(there) for there, _ in found) or "none"
        what = f"no checkpoint of step {step} in {directory.path}"
        raise BadInput(Problem("bigft checkpoint", what, f"there are: {steps}"))
    return rows


def _seen(path: Path, reads_all: bool) -> dict[str, Any] | None:
    """Its state and time. None where a live run has collected it, which is asked after it was read:
    until then it may look damaged."""
    state = _state(path, reads_all)
    try:
        return {"time": os.lstat(path).st_mtime, **state}
    except FileNotFoundError:
        return None


def _state(path: Path, reads_all: bool) -> dict[str, Any]:
    try:
        manifest = Manifest.read(path)
        if not reads_all:
            manifest.check_state(path)
    except Damaged as damaged:
        return {"state": "damaged", "num_bytes": None, "problems": [str(damaged)]}
    problems = manifest.problems(path, range(len(manifest.files))) if reads_all else []
    state = "damaged" if problems else "verified" if reads_all else "committed"
    return {"state": state, "num_bytes": manifest.num_bytes, "problems": problems}


def as_text(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return "no checkpoints"
    lines = []
    for row in rows:
        size = "?" if row["num_bytes"] is None else f"{row['num_bytes'] / 1e6:.1f}"
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(row["time"]))
        marks = ", ".join(mark for mark in ("newest", "best") if row[mark])
        columns = f"checkpoint-{row['step']:<9} {size:>9} MB  {when}  {row['state']:<9}  {marks}"
        lines += [columns.rstrip(), *(f"    {problem}" for problem in row["problems"])]
    return "\n".join(lines)
