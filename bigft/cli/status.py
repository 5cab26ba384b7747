"""`bigft status RUN`: how far a run is, how it ended, and what to do next."""

from __future__ import annotations

import argparse
import json
import shlex
import time
from pathlib import Path
from typing import Any

from bigft.config.exit_codes import EXIT_FAILED, EXIT_RESUMABLE, EXIT_RUNNING
from bigft.report.console import duration
from bigft.runtime.events import Event, read_metrics
from bigft.runtime.rising_loss import rising_loss
from bigft.runtime.run_directory import RunDirectory
from bigft.runtime.run_state import MAX_CRASHES

EXIT_CODES = {
    "finished": 0,
    "resumable": EXIT_RESUMABLE,
    "failed": EXIT_FAILED,
    "running": EXIT_RUNNING,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="a run directory (train.output_dir)")
    parser.add_argument("--json", action="store_true", help="one JSON object, for scripts")
    codes = ", ".join(f"{code} {status}" for status, code in EXIT_CODES.items())
    parser.add_argument("--exit-code", action="store_true", help=f"exit with {codes}")


def run(args: argparse.Namespace) -> int:
    status = collect(RunDirectory(args.run))
    print(json.dumps(status, indent=2) if args.json else as_text(status))
    return EXIT_CODES[status["status"]] if args.exit_code else 0


def collect(directory: RunDirectory) -> dict[str, Any]:
    """What is known of the run, as JSON values; absent facts are None.

    Raises: BadInput if the path is no run directory.
    """
    about = directory.observe()
    events = read_metrics(directory.metrics_file)
    newest = {event["event"]: event for event in events}
    log = newest.get("log", {})
    status = {
        "path": str(directory.path),
        "run_id": about.get("run_id"),
        "status": about["status"],
        "why": about.get("why", ""),
        "exit_code": about.get("exit_code"),
        "crashes": about.get("crashes", 0),
        "host": about.get("host"),
        "pid": about.get("pid"),
        "job_id": about.get("job_id"),
        "restart_count": about.get("restart_count"),
        "world_size": about.get("world_size"),
        "step": directory.last_step(),
        "total_steps": newest.get("start", {}).get("total_steps"),
        "epoch": log.get("epoch"),
        "loss": log.get("loss"),
        "last_event": events[-1]["time"] if events else None,
        "nonfinite_steps": _steps(events, "nonfinite"),
        "failed_saves": _steps(events, "save_failed"),
        "warning": rising_loss(events) or None,
        "branched_from": _text(directory.branched_from),
        "latest_checkpoint": _text(directory.latest_checkpoint),
        "best_checkpoint": _text(_in(directory, directory.best)),
        "results": directory.read_results(),
    }
    return status | {"go_on": _command(status)}


def as_text(status: dict[str, Any]) -> str:
    why = f" ({status['why']})" if status["why"] else ""
    rows = [("status", status["status"] + why), ("step", _progress(status))]
    rows += [(key, f"{status[key]:.4g}") for key in ("epoch", "loss") if status[key] is not None]
    if status["warning"]:
        rows.append(("warning", status["warning"]))
    if status["status"] == "running":
        job = f", Slurm job {status['job_id']}" if status["job_id"] else ""
        rows.append(("process", f"{status['pid']} on {status['host']}{job}"))
        if status["last_event"] is not None:
            rows.append(("last event", f"{duration(time.time() - status['last_event'])} ago"))
    if status["crashes"]:
        text = f"{status['crashes']} in a row without a newer checkpoint"
        rows.append(("crashes", text))
    for key in ("nonfinite_steps", "failed_saves"):
        if steps := status[key]:
            shown = ", ".join(map(str, steps[-8:]))
            rows.append((key.replace("_", " "), f"{len(steps)} (of late: {shown})"))
    for key in ("branched_from", "latest_checkpoint", "best_checkpoint"):
        if status[key] is not None:
            rows.append((key.replace("_", " "), status[key]))
    if status["go_on"]:
        rows.append(("go on with", status["go_on"]))
    above = ("step", "epoch")
    rows += [(key, str(value)) for key, value in status["results"].items() if key not in above]
    width = max(len(name) for name, _ in rows)
    return "\n".join([status["path"], *(f"  {name:<{width}}  {value}" for name, value in rows)])


def _command(status: dict[str, Any]) -> str | None:
    """What continues the run, ready for a shell."""
    newest = status["latest_checkpoint"] or status["branched_from"]
    ranks = status["world_size"] or 1
    if status["status"] not in ("resumable", "failed") or newest is None:
        return None
    by_itself = status["crashes"] < MAX_CRASHES
    return shlex.join(
        [
            *("bigft", "train", f"{status['path']}/config.yaml"),
            f"train.output_dir={status['path']}",
            f"train.resume_from_checkpoint={'true' if by_itself else newest}",
            *(("--nproc", str(ranks)) if ranks > 1 else ()),
        ]
    )


def _steps(events: list[Event], name: str) -> list[int]:
    """The steps at which it happened, each once."""
    return sorted({event["step"] for event in events if event["event"] == name})


def _progress(status: dict[str, Any]) -> str:
    if not status["total_steps"]:
        return str(status["step"])
    share = status["step"] / status["total_steps"]
    return f"{status['step']}/{status['total_steps']} ({share:.0%})"


def _in(directory: RunDirectory, checkpoint: Path | None) -> Path | None:
    """The checkpoint as a path of the same kind as the directory's, relative or not."""
    return None if checkpoint is None else directory.path / checkpoint.name


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
