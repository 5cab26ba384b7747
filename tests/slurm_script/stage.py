"""A stage for slurm/finetune.sh: Slurm and bigft are short scripts that note their words."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from waiting import PATIENCE

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "slurm" / "finetune.sh"

# Every call is a file of its own: <number>-<name>, its words ended by NUL. Then the scene plays.
NOTE = """\
#!/bin/bash
printf '%s\\0' "${0##*/}" "$@" >"$(printf '%s/calls/%03d' "$STAGE" "$(ls "$STAGE/calls" | wc -l)")"
"""
BIGFT = """
verb=$1
[[ $verb == job ]] && verb=$2
env -0 >"$STAGE/environment-$verb"
[[ ! -e $STAGE/$verb ]] || source "$STAGE/$verb"
"""
SRUN = """
while [[ $1 == -* ]]; do shift; done
exec "$@"
"""
TORCHRUN = """
while [[ $1 != -m ]]; do shift; done
exec "${@:2}"
"""
SCONTROL = """
case "$1 $2" in
    "show job")
        printf 'JobId=7 JobName=Restarts=9 JobState=FAILED\\n'
        printf '   JobState=%s Reason=None\\n' "${STAGE_STATE-RUNNING}"
        printf '   Command=%s config.yaml a=b\\n' "$STAGE_SCRIPT"
        restarts=${STAGE_RESTARTS:-${SLURM_RESTART_COUNT:-0}}
        printf '   Requeue=1 Restarts=%s BatchFlag=1\\n' "$restarts" ;;
    "show hostnames") printf 'n1\\nn2\\n' ;;
    *) source "$STAGE/requeue" ;;
esac
"""
SCANCEL = """
kill -TERM "$(cat "$STAGE/ready")"
"""
PROGRAMS = {
    "bigft": BIGFT,
    "srun": SRUN,
    "scontrol": SCONTROL,
    "scancel": SCANCEL,
    "torchrun": TORCHRUN,
}
# What each program says and returns unless a test says otherwise: a run that goes through.
SCENES = {
    "begin": "echo first; echo out",
    "check": "echo ok",
    "node": "echo ready",
    "train": "",
    "end": "",
    "requeue": "",
}


@dataclass
class Stage:
    """Where a job script runs. environ: what Slurm would set."""

    place: Path
    environ: dict[str, str] = field(default_factory=dict)

    @property
    def calls(self) -> list[list[str]]:
        """Words of every call, in their order."""
        files = sorted((self.place / "calls").iterdir())
        return [file.read_bytes().decode().split("\0")[:-1] for file in files]

    def named(self, *words: str) -> list[list[str]]:
        """What follows these words in the calls that begin with them."""
        start = list(words)
        return [call[len(start) :] for call in self.calls if call[: len(start)] == start]

    def environment_of(self, verb: str) -> dict[str, str]:
        lines = (self.place / f"environment-{verb}").read_bytes().decode().split("\0")[:-1]
        return dict(line.split("=", 1) for line in lines)

    def play(self, scenes: Mapping[str, str]) -> None:
        for name, text in {**SCENES, **scenes}.items():
            (self.place / name).write_text(text)

    def start(self, *words: str, **scenes: str) -> subprocess.Popen[str]:
        """The job, as Slurm starts it: a copy of the script, from its spool."""
        self.play(scenes)
        spool = shutil.copy(SCRIPT, self.place / "spool" / "slurm_script")
        return subprocess.Popen(
            ["bash", spool, *words],
            cwd=self.place / "submitted",
            env=self.environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *words: str, **scenes: str) -> tuple[int, str]:
        """The job's exit code and the last line of its log."""
        return self.end(self.start(*words, **scenes))

    @staticmethod
    def end(job: subprocess.Popen[str]) -> tuple[int, str]:
        log, _ = job.communicate(timeout=PATIENCE)
        return job.returncode, log.splitlines()[-1]
