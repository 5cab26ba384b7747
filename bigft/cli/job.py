"""`bigft job begin CONFIG ...` and `bigft job end RUN ...`: what slurm/finetune.sh asks.

Slurm starts a job again and again; whether a start goes on, and whether there is another, only
bigft can tell: it reads configs and run.json. The script does what Slurm has to be asked for.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, Namespace
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from bigft.api.finished import finished_as
from bigft.cli import REFUSAL
from bigft.cli.arguments import add_config_arguments, read_config
from bigft.config.exit_codes import EXIT_BAD_INPUT, EXIT_FAILED, EXIT_RESUMABLE
from bigft.config.sections import RunConfig
from bigft.runtime.run_directory import RunDirectory

MAX_IDLE_STARTS = 5  # in a row that saved nothing new, after which a job is not requeued

parse = ArgumentParser.parse_args


def add_arguments(parser: ArgumentParser) -> None:
    moments = parser.add_subparsers(dest="moment", required=True)
    begin = moments.add_parser(
        "begin",
        help="print finished, named (it begins with the checkpoint that the config names), again "
        "(this job has trained before) or first; and train.output_dir",
    )
    add_config_arguments(begin)
    end = moments.add_parser(
        "end",
        help=f"exit with 0 finished, {EXIT_RESUMABLE} to be started again, {EXIT_FAILED} failed, "
        f"{EXIT_BAD_INPUT} refused; "
        "print why, after a line with saved or stopped where it is to be started again",
    )
    end.add_argument("run", type=Path, help="train.output_dir")
    end.add_argument("--code", type=int, required=True, help="training's exit code")
    end.add_argument("--signal", default="", help="the signal that the job got, if any")


def run(args: Namespace) -> int:
    if args.moment == "begin":
        config = read_config(args, quiet=True).config
        print(standing(config), config.train.output_dir, sep="\n")
        return 0
    code, *lines = verdict(RunDirectory(args.run), args.code, args.signal)
    for line in filter(None, lines):
        print(line)
    return code


# -- before training ------------------------------------------------------------------------------


def standing(config: RunConfig) -> str:
    """How the run stands before the job's start; a word of `bigft job begin`."""
    directory, named = RunDirectory(config.train.output_dir), config.train.resume_from_checkpoint
    run = directory.observe_if_begun()
    # Begun from there already: by an earlier start of this job, or by another one of its chain.
    if isinstance(named, str) and run.get("began_with") != str(Path(named).resolve()):
        return "named"
    if run.get("status") == "finished" and finished_as(config, directory):
        return "finished"
    return "again" if run and run["job_id"] and run["job_id"] == _job()[0] else "first"


# -- after training -------------------------------------------------------------------------------


class Verdict(NamedTuple):
    """code: 0 finished, EXIT_RESUMABLE to be started again, EXIT_FAILED, EXIT_BAD_INPUT refused.

    kept: "saved" or "stopped" where it is to be started again.  why: one line.
    """

    code: int
    kept: str = ""
    why: str = ""


def verdict(directory: RunDirectory, code: int, signal: str) -> Verdict:
    """How this start of the job ended. code: of training, or of its launcher, which may have made
    another one of it.  signal: that the job got; "" if none."""
    run = directory.observe_if_begun()
    if run.get("status") == "finished":
        return Verdict(0)
    ended = f"training ended with exit code {code}"
    if (run.get("job_id"), run.get("restart_count")) != _job():  # it did not get that far
        if refused := _refusal():
            return Verdict(EXIT_BAD_INPUT, why=refused)
        if signal or code == EXIT_RESUMABLE:
            what = f"SIG{signal}" if signal else "a signal"
            return Verdict(EXIT_RESUMABLE, "stopped", f"{what} before training began")
        return Verdict(EXIT_FAILED, why=f"{ended} before it began: see above")
    why = (run["why"] or ended).partition("\n")[0]
    if run["status"] == "failed":
        return Verdict(EXIT_FAILED, why=why)
    if (idle := directory.idle_starts()) >= MAX_IDLE_STARTS:
        why = f"{idle} starts in a row saved nothing new ({why}): see above, or give it more --time"
        return Verdict(EXIT_FAILED, why=why)
    return Verdict(EXIT_RESUMABLE, "saved" if directory.latest_checkpoint else "stopped", why)


def _job() -> tuple[str, int]:
    """Slurm's id and restart count of this job, as run.json has them."""
    return os.environ.get("SLURM_JOB_ID", ""), int(os.environ.get("SLURM_RESTART_COUNT", "0"))


def _refusal() -> str:
    with suppress(OSError):
        return Path(os.environ.get(REFUSAL, "")).read_text(encoding="utf-8")
    return ""
