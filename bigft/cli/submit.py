"""`bigft submit CONFIG [section.key=value ...] --nodes 2 --time 02:00:00`: checks, then sbatch.

What is submitted is slurm/finetune.sh with the config and the overrides as they were given; plain
sbatch does the same without the checks. Options that bigft does not know go to sbatch unchanged.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path

from bigft.cli import check
from bigft.cli.arguments import add_config_arguments, count, read_config
from bigft.cli.job import standing
from bigft.config.errors import BadInput, Problem
from bigft.runtime.launcher import LAUNCHER_VARIABLES
from bigft.runtime.run_directory import RunDirectory

SCRIPT = "slurm/finetune.sh"
OURS = ("--dry-run", "--chain", "--script", "--help")
# Options of sbatch whose value may be a word of its own. All others are one word: --option=value.
SBATCH = {
    "--account": "-A",
    "--array": "-a",
    "--constraint": "-C",
    "--cpus-per-task": "-c",
    "--dependency": "-d",
    "--exclude": "-x",
    "--gpus-per-node": "",
    "--gpus-per-task": "",
    "--gres": "",
    "--job-name": "-J",
    "--mem": "",
    "--nodelist": "-w",
    "--nodes": "-N",
    "--ntasks-per-node": "",
    "--output": "-o",
    "--partition": "-p",
    "--qos": "-q",
    "--time": "-t",
}
COUNTS = ("--nodes", "--ntasks-per-node")
# What is not taken, and what to give instead.
NOT_TAKEN = {
    ("--ntasks", "-n"): "give --nodes and --ntasks-per-node: one task is one rank",
    ("--gpus", "-G"): "give --gpus-per-node: one GPU is one rank",
    ("--chdir", "-D"): "start bigft submit in that directory: paths are checked there",
}
SIGNAL_SECONDS = 180  # before the time limit the script is asked to stop: its --signal
CLOSE = 0.75
FIXES = {
    "unrecognized option": "see `man sbatch`",
    "partition": "`sinfo -s` lists the partitions: --partition=NAME",
    "account": "`sacctmgr show associations user=$USER` lists your accounts: --account=NAME",
    "time limit": "`sinfo -s` lists the partitions' limits: --time=HH:MM:SS",
    "contact": "is Slurm's controller up? `scontrol ping` tells",
    "configuration source": "start it on a login node of the cluster, or set SLURM_CONF",
    "node configuration": "`sinfo -N -l` lists what nodes have: fewer tasks, CPUs or GPUs per node",
}


def add_arguments(parser: ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument("--dry-run", action="store_true", help="check, print the line, stop")
    parser.add_argument(
        "--chain", type=count, default=1, metavar="N", help="jobs in a row that continue the run"
    )
    parser.add_argument("--script", type=Path, help=f"the job script ({SCRIPT} of the checkout)")
    group = parser.add_argument_group(
        "options of sbatch", "any other of its options goes as one word: --option=value"
    )
    for name, short in SBATCH.items():
        kind, shown = (count, "N") if name in COUNTS else (str, "...")
        group.add_argument(*filter(None, (name, short)), type=kind, metavar=shown)
    parser.set_defaults(more=[])


def parse(parser: ArgumentParser, words: Sequence[str]) -> Namespace:
    """The arguments; sbatch's options that the parser does not know are in `more`."""
    more = [word for word in words if word.startswith("-") and not _is_known(word)]
    args = parser.parse_intermixed_args([word for word in words if word not in more])
    args.more = more
    return args


def run(args: Namespace) -> int:
    _settle(args)
    script = _script(args.script)
    sbatch = shutil.which("sbatch")
    if sbatch is None and not args.dry_run:
        what, fix = "not on PATH", "start it on a login node of the cluster; --dry-run needs none"
        raise BadInput(Problem("sbatch", what, fix))
    directory = _check(args)
    words = [word for word in (args.config, *args.overrides) if word is not None]
    jobs: list[str] = []
    for number in range(args.chain):
        if number:  # a chain goes on however the job before it ended
            args.dependency = f"afterany:{jobs[-1] if jobs else 'JOB'}"
        argv = [*_options(args), str(script), *words]
        print(shlex.join(["sbatch", "--parsable", *argv]))
        if sbatch is not None and not args.dry_run:
            jobs.append(_submit([sbatch, "--parsable", *argv], jobs))
            print(f"job {jobs[-1]}; its log: {_log(args, jobs[-1])}")
    if jobs:
        print(f"how it stands: squeue --me; bigft status {shlex.quote(str(directory.path))}")
    return 0


def clean(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without what a job or a launcher around this process has put there."""
    return {
        name: value
        for name, value in environ.items()
        if name == "SLURM_CONF"
        or not (name.startswith(("SLURM_", "SRUN_")) or name in LAUNCHER_VARIABLES)
    }


def _is_known(word: str) -> bool:
    if not word.startswith("--"):
        return word[:2] in ("-h", *filter(None, SBATCH.values()))
    name = word.partition("=")[0]
    return name in OURS or name in SBATCH


def _settle(args: Namespace) -> None:
    """Nodes and ranks in numbers. Raises BadInput for words that can be nothing."""
    problems = []
    for word in args.more:
        name = word.partition("=")[0]
        if nearest := get_close_matches(name, OURS, n=1, cutoff=CLOSE):
            problems.append(Problem(name, "no option of submit", f"did you mean {nearest[0]}?"))
        for names, instead in NOT_TAKEN.items():
            if name in names or (word[:2] in names and not word.startswith("--")):
                problems.append(Problem(name, "is not taken", instead))
    for word in args.overrides:
        if "=" not in word:
            fix = "options of sbatch that bigft does not know are one word: --option=value"
            problems.append(Problem(word, "neither section.key=value nor an option", fix))
    signals = any(word.startswith("--signal") for word in args.more)
    if not signals and 0 < _seconds(args.time or "") <= SIGNAL_SECONDS:
        what = (
            f"{args.time} is over too soon: a stop is asked for {SIGNAL_SECONDS} s before the end"
        )
        problems.append(Problem("--time", what, "give it longer, or --signal=B:USR1@30"))
    if problems:
        raise BadInput(problems)
    gpus = re.search(r"\d+$", args.gpus_per_node or _gpus(args.gres or ""))
    args.nodes = args.nodes or 1
    args.ntasks_per_node = args.ntasks_per_node or (int(gpus[0]) if gpus else 1)


def _seconds(limit: str) -> int:
    """Of one of sbatch's forms: M, M:S, H:M:S, D-H, D-H:M, D-H:M:S; 0 for none, or another text."""
    form = re.fullmatch(r"(?:(\d+)-)?(\d+)(?::(\d+))?(?::(\d+))?", limit)
    if form is None:
        return 0
    days, *parts = (int(part or 0) for part in form.groups())
    if form[1] is None and form[4] is None:
        parts = [0, *parts]
    return 86400 * days + 3600 * parts[0] + 60 * parts[1] + parts[2]


def _gpus(resources: str) -> str:
    """The part of --gres that asks for GPUs: gpu:4, gpu:a100:4; "" if none does."""
    return next((part for part in resources.split(",") if part.startswith("gpu:")), "")


def _options(args: Namespace) -> list[str]:
    """What sbatch gets before the script, a word each."""
    given = {name: getattr(args, name.strip("-").replace("-", "_")) for name in SBATCH}
    return [f"{name}={value}" for name, value in given.items() if value is not None] + args.more


def _script(path: Path | None) -> Path:
    checkout = Path(__file__).resolve().parents[2]
    places = [path] if path else [Path(SCRIPT), checkout / SCRIPT]
    for place in places:
        if place.is_file():
            return place.absolute()
    fix = "give its path: --script PATH; it is in bigft's repository"
    raise BadInput(Problem("--script", f"no {path or SCRIPT} here", fix))


def _check(args: Namespace) -> RunDirectory:
    """Looks at the run as the job will. Raises BadInput with all that it would be refused for."""
    first = re.match(r"\d+", args.array or "")
    config, *overrides = [
        word if first is None or word is None else word.replace("%a", first[0])
        for word in (args.config, *args.overrides)
    ]
    nproc = args.nodes * args.ntasks_per_node
    asked = Namespace(config=config, overrides=overrides, nproc=nproc, nodes=args.nodes)
    loaded = read_config(asked, quiet=True)
    train = loaded.config.train
    directory = RunDirectory(train.output_dir)
    if train.resume_from_checkpoint is False:
        asked.overrides = [*overrides, "train.resume_from_checkpoint=true"]  # as the script does
    if standing(loaded.config) == "finished" and not args.array:  # of which others have not
        what = f"{directory.path} holds a finished run"
        fix = (
            "choose another, ask for more, or name a checkpoint: train.resume_from_checkpoint=PATH"
        )
        raise BadInput(Problem(loaded.where("train.output_dir"), what, fix))
    check.show(asked, elsewhere=True)
    return directory


def _submit(argv: list[str], before: list[str]) -> str:
    """The job's id. Raises BadInput with what sbatch says."""
    done = subprocess.run(argv, env=clean(os.environ), capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return done.stdout.strip().partition(";")[0]
    lines = [re.sub("sbatch: (error: |fatal: )?", "", line) for line in done.stderr.splitlines()]
    said = ", ".join(dict.fromkeys(lines))
    fix = next((fix for part, fix in FIXES.items() if part in said.lower()), "see `man sbatch`")
    unknown = re.search(r"unrecognized option '(--[\w-]+)", said)
    if unknown and (nearest := get_close_matches(unknown[1], (*OURS, *SBATCH), n=1)):
        fix = f"did you mean {nearest[0]}?"
    if before:
        fix += f"; already submitted: {' '.join(before)}"
    raise BadInput(Problem("sbatch", said or f"exit code {done.returncode}", fix))


def _log(args: Namespace, job: str) -> str:
    pattern: str = args.output or "%x-%j.out"
    name = pattern.replace("%x", args.job_name or "bigft")
    return name if args.array else name.replace("%j", job)
