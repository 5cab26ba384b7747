"""`bigft status RUN`: how far a run is, how it ended, and what to do next."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from bigft.report.console import duration
from bigft.runtime.events import read_metrics
from bigft.runtime.run_directory import RunDirectory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="a run directory (train.output_dir)")
    parser.add_argument("--json", action="store_true", help="one JSON object, for scripts")


def run(args: argparse.Namespace) -> int:
    status = collect(RunDirectory(args.run))
    print(json.dumps(status, indent=2) if args.json else as_text(status))
    return 0


def collect(directory: RunDirectory) -> dict[str, Any]:
    """What is known of the run, as JSON values; absent facts are None.

    Raises: BadInput if the path is no run directory.
    """
    about = directory.observe()
    events = read_metrics(directory.metrics_file)
    newest = {event["event"]: event for event in events}
    log = newest.get("log", {})
    return {
        "path": str(directory.path),
        "run_id": about.get("run_id"),
        "status": about["status"],
        "why": about.get("why", ""),
        "exit_code": about.get("exit_code"),
        "host": about.get("host"),
        "pid": about.get("pid"),
        "world_size": about.get("world_size"),
        "step": next((event["step"] for event in reversed(events) if "step" in event), 0),
        "total_steps": newest.get("start", {}).get("total_steps"),
        "epoch": log.get("epoch"),
        "loss": log.get("loss"),
        "last_event": events[-1]["time"] if events else None,
        "latest_checkpoint": _text(directory.latest_checkpoint),
        "best_checkpoint": _text(directory.best),
        "results": directory.read_results(),
    }


def as_text(status: dict[str, Any]) -> str:
    why = f" ({status['why']})" if status["why"] else ""
    rows = [("status", status["status"] + why), ("step", _progress(status))]
    rows += [(key, f"{status[key]:.4g}") for key in ("epoch", "loss") if status[key] is not None]
    if status["status"] == "running":
        rows.append(("process", f"{status['pid']} on {status['host']}"))
        if status["last_event"] is not None:
            rows.append(("last event", f"{duration(time.time() - status['last_event'])} ago"))
    for key in ("latest_checkpoint", "best_checkpoint"):
        if status[key] is not None:
            rows.append((key.replace("_", " "), status[key]))
    if status["status"] in ("resumable", "failed") and status["latest_checkpoint"]:
        path, ranks = status["path"], status["world_size"] or 1
        command = (
            f"bigft train {path}/config.yaml train.output_dir={path} "
            "train.resume_from_checkpoint=true" + (f" --nproc {ranks}" if ranks > 1 else "")
        )
        rows.append(("go on with", command))
    rows += [(key, str(value)) for key, value in status["results"].items()]
    width = max(len(name) for name, _ in rows)
    return "\n".join([status["path"], *(f"  {name:<{width}}  {value}" for name, value in rows)])


def _progress(status: dict[str, Any]) -> str:
    if not status["total_steps"]:
        return str(status["step"])
    share = status["step"] / status["total_steps"]
    return f"{status['step']}/{status['total_steps']} ({share:.0%})"


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)
