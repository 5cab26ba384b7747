"""The test cluster, its jobs and their runs, seen from the tests."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml

from bigft.runtime.events import read_metrics
from bigft.runtime.run_directory import RunDirectory

REPOSITORY = Path(__file__).resolve().parents[2]
CLUSTER = REPOSITORY / "tests" / "slurm" / "cluster.sh"
FINETUNE = REPOSITORY / "slurm" / "finetune.sh"
INSTALL = "run `tests/slurm/cluster.sh install` as root"
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")
STEPS, SAVE_STEPS = 60, 10  # of each run
SECONDS = 180.0  # for what takes a cold start of training on two loaded cores
POLL = 0.01  # a step of the tiny models takes longer
SITE = "export PATH={bin}:$PATH\n"
BIGFT = """\
#!/bin/sh
export PYTHONPATH='{repository}' BIGFT_CACHE='{cache}' HF_HUB_OFFLINE=1 DS_ACCELERATOR=cpu
export OMP_NUM_THREADS=1 CUDA_VISIBLE_DEVICES=  # bits depend on them
# Slurm's daemons come first: on a loaded machine they would miss each other's time-outs.
exec nice -n 5 '{python}' -m bigft "$@"
"""


def missing_programs(*names: str) -> list[str]:
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    return [name for name in names if shutil.which(name, path=path) is None]


def wait_until(
    what: str,
    condition: Callable[[], Any],
    told: Callable[[], str] = str,
    every: float = POLL,
) -> Any:
    """The condition's first answer that is true; AssertionError with `what` and what is told when
    it takes too long."""
    deadline = time.monotonic() + SECONDS
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"{SECONDS:.0f} s, and still not: {what}\n{told()}"
        time.sleep(every)
    return answer


class Cluster:
    """Four nodes n1..n4. directory: new, of this cluster alone."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory / "slurm"
        self.bin = directory / "bin"
        self.bin.mkdir()
        bigft = self.bin / "bigft"
        cache = directory / "cache"
        bigft.write_text(BIGFT.format(repository=REPOSITORY, cache=cache, python=sys.executable))
        bigft.chmod(0o755)
        self._site = directory / "site.sh"
        self._site.write_text(SITE.format(bin=self.bin))

    def start(self) -> None:
        self.verb("start", str(self.directory))
        if not self.has_network:  # nor names
            with self._site.open("a") as site:
                print("export MASTER_ADDR=127.0.0.1", file=site)

    def stop(self) -> None:
        self.verb("stop", str(self.directory))

    @property
    def has_network(self) -> bool:
        """Whether each node is a host of its own, whose cable can be pulled."""
        return (self.directory / "mode").read_text().strip() == "namespaces"

    def on(self, *words: str, cwd: Path | None = None) -> str:
        """What the command prints on the login node."""
        return self.verb("on", str(self.directory), *words, cwd=cwd)

    def at(self, node: str, *words: str, cwd: Path | None = None) -> str:
        """What the command prints on that node."""
        return self.verb("at", str(self.directory), node, *words, cwd=cwd)

    def kill(self, node: str) -> None:
        self.verb("kill-node", str(self.directory), node)

    def revive(self, node: str) -> None:
        self.verb("revive", str(self.directory), node)

    @contextlib.contextmanager
    def cut_off(self, node: str) -> Iterator[None]:
        self.verb("cut", str(self.directory), node)
        try:
            yield
        finally:
            self.verb("fix", str(self.directory), node)

    @contextlib.contextmanager
    def configured(self, *options: str) -> Iterator[None]:
        """In the block slurm.conf has these: "KillWait=4"."""
        self.verb("set", str(self.directory), *options)
        try:
            yield
        finally:
            self.verb("set", str(self.directory))

    def sees(self, path: Path) -> Path:
        """The path as the cluster sees it: file systems mounted there are not seen here."""
        if not self.has_network:
            return path
        parent = (self.directory / "pid").read_text().strip()
        first = subprocess.run(["pgrep", "-P", parent], capture_output=True, text=True, check=True)
        return Path(f"/proc/{first.stdout.strip()}/root{path}")

    def sbatch(self, options: Iterable[str], arguments: Iterable[str], place: Path) -> Job:
        """Submits slurm/finetune.sh from that directory, where its log will lie."""
        words = ["sbatch", "--parsable", *options, str(FINETUNE), *arguments]
        return Job(self, self.on(*words, cwd=place).strip(), place)

    def submit(self, run: Run, *options: str) -> Job:
        """A job with one rank on each of the run's nodes, once all nodes are free."""
        wait_until("all nodes idle", self.is_idle, lambda: self.on("sinfo"), every=0.2)
        return self.sbatch([f"--nodes={run.nodes}", *options], [str(run.config)], run.place)

    def is_idle(self) -> bool:
        """Whether every node is up and free."""
        return set(self.on("sinfo", "-h", "-p", "low", "-o", "%T").split()) == {"idle"}

    def verb(self, verb: str, *words: str, cwd: Path | None = None) -> str:
        environ = {name: value for name, value in os.environ.items() if "SLURM" not in name}
        done = subprocess.run(
            [CLUSTER, verb, *words],
            cwd=cwd,
            env={**environ, "BIGFT_SITE": str(self._site)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{verb} {' '.join(words)}: {done.stdout}{done.stderr}"
        return done.stdout


@dataclass
class Job:
    """A job of slurm/finetune.sh, submitted in `place`."""

    cluster: Cluster
    id: str
    place: Path

    def log(self) -> str:
        return "".join(path.read_text() for path in self.place.glob(f"*-{self.id}.out"))

    def last_line(self) -> str:
        """The last one that is the script's. Slurm's own words about a job that it ended come after
        it, and no script can help that."""
        lines = [line for line in self.log().splitlines() if line.startswith("bigft: ")]
        return lines[-1] if lines else ""

    def state(self) -> str:
        return self._show()["JobState"]

    def started(self) -> float:
        """Unix time of its last start, in whole seconds."""
        return datetime.fromisoformat(self._show()["StartTime"]).timestamp()

    def nodes(self) -> list[str]:
        return self.cluster.on("scontrol", "show", "hostnames", self._show()["NodeList"]).split()

    def change(self, option: str) -> None:
        self.cluster.on("scontrol", "update", f"jobid={self.id}", option)

    def wait_for(self, text: str) -> None:
        """Until the log holds the text."""
        wait_until(repr(text), lambda: text in self.log(), self._told)

    def wait_for_state(self, *states: str) -> str:
        wait_until(" or ".join(states), lambda: self.state() in states, self._told, every=0.3)
        return self.state()

    def wait_for_restart(self) -> None:
        wait_until("a restart", lambda: self._show()["Restarts"] != "0", self._told, every=0.3)

    def frozen(self, run: Run) -> dict[int, int]:
        """Stops every rank where it is, some steps after the first checkpoint, while the cluster
        goes on; so a fault meets a run of small steps without a hurry. Returns `ranks_of`."""
        wait_until("the first steps", lambda: run.step() > SAVE_STEPS + 2, self._told)
        ranks = ranks_of(run, "SLURM_PROCID")
        send(signal.SIGSTOP, ranks.values())
        assert len(ranks) == run.nodes, f"{ranks}: {self.log()}"
        return ranks

    def _show(self) -> dict[str, str]:
        return dict(re.findall(r"(\w+)=(\S*)", self.cluster.on("scontrol", "show", "job", self.id)))

    def _told(self) -> str:
        return f"{self.cluster.on('scontrol', 'show', 'job', self.id)}\n{self.log()}"


def ranks_of(run: Run, variable: str) -> dict[int, int]:
    """Process ids of a run's ranks, as this host numbers them. variable: holds the rank."""
    found: dict[int, int] = {}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended while it was looked at
            program, *words = (place / "cmdline").read_bytes().decode().split("\0")
            if not Path(program).name.startswith("python") or str(run.config) not in words:
                continue
            lines = (place / "environ").read_bytes().decode().split("\0")
            environ = dict(line.split("=", 1) for line in lines if "=" in line)
            if variable in environ:
                rank, pid = int(environ[variable]), int(place.name)
                found[rank] = min(pid, found.get(rank, pid))  # the oldest: no worker of it
    return dict(sorted(found.items()))


def send(number: signal.Signals, pids: Iterable[int]) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def was_asked_to_stop(pid: int) -> bool:
    """Whether SIGTERM or SIGUSR1 waits until the frozen process goes on."""
    (mask,) = re.findall(r"ShdPnd:\s+(\w+)", Path(f"/proc/{pid}/status").read_text())
    return any(int(mask, 16) >> number - 1 & 1 for number in (signal.SIGTERM, signal.SIGUSR1))


class Run:
    """A run directory in `place`, and its config file beside it. nodes: with a rank each."""

    def __init__(self, place: Path, nodes: int, name: str = "out") -> None:
        self.place, self.nodes = place, nodes
        self.directory = RunDirectory(place / name)
        self.config = place / "config.yaml"

    def write(self, config: dict[str, Any]) -> None:
        self.config.write_text(yaml.safe_dump(config, sort_keys=False))

    def events(self, name: str) -> list[dict[str, Any]]:
        """Every event of that name, those too that a later start replaced."""
        return [event for event in self._events() if event["event"] == name]

    def step(self) -> int:
        """The newest step that is logged; 0 if none is."""
        return max((event["step"] for event in self.events("log")), default=0)

    def starts(self) -> list[int]:
        """The step that each start went on from."""
        return [event["step"] for event in self.events("resume")]

    def losses(self) -> dict[int, tuple[float, float]]:
        """Loss and gradient norm by step, as read_metrics reads a run that was interrupted."""
        logs = [e for e in read_metrics(self.directory.metrics_file) if e["event"] == "log"]
        return {event["step"]: (event["loss"], event["grad_norm"]) for event in logs}

    def weights(self) -> bytes:
        return (self.directory.model / "model.safetensors").read_bytes()

    def steps_lost(self) -> int:
        """Steps that the last start did again."""
        before, _ = self._around_last_start()
        steps = [event["step"] for event in before if event["event"] == "log"]
        return max(steps, default=0) - self.starts()[-1]

    def going_again(self) -> float:
        """Unix time at which the last start had done its first step."""
        _, after = self._around_last_start()
        return next(event["time"] for event in after if event["event"] == "log")

    def _around_last_start(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        events = self._events()
        *_, start = (n for n, event in enumerate(events) if event["event"] == "resume")
        return events[:start], events[start:]

    def _events(self) -> list[dict[str, Any]]:
        if not self.directory.metrics_file.exists():
            return []
        lines = self.directory.metrics_file.read_text().splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]


def assert_same_bits(run: Run, uninterrupted: Run) -> None:
    assert run.losses() == uninterrupted.losses(), "the losses differ"
    assert run.weights() == uninterrupted.weights(), "the losses agree and the weights differ"
