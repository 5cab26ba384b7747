"""Runs of `bigft train` that a test can kill, hold and signal, and what must be left of them.

A rank is a process of its own, forked from the server of `distributed.ranks`; from its environment
and its config file on it does what a launcher's rank does. Beside the product's own failpoints
there are those of `_name_places`, so that a test can meet a rank anywhere in its training.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Self

from distributed.ranks import _context
from waiting import PATIENCE

from bigft.runtime import environment
from bigft.runtime.events import read_metrics
from bigft.runtime.failpoints import LIST_VARIABLE, VARIABLE, failpoint
from bigft.runtime.launcher import Launch, free_port

Config = dict[str, Any]
# What differs between two runs that did the same.
TIMED = {"time", "seconds", "tokens_per_second", "cpu_wait"}


class Ranks:
    """One launch of `bigft train` over a config; in a `with`, at whose end no rank is left.

    failpoints: what BIGFT_FAILPOINTS says on every rank.  places: a directory for the names of all
    failpoints that each rank passes; `Places.of` reads it.  seconds_per_fsync: of a slow disk.
    cwd: the ranks' current directory.  launcher: more variables that they find.
    """

    def __init__(
        self,
        config: Config,
        num_ranks: int = 2,
        failpoints: str = "",
        places: Path | None = None,
        seconds_per_fsync: float = 0.0,
        cwd: Path = Path(),
        launcher: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = Path(config["train"]["output_dir"])
        scratch = self.directory.with_name(self.directory.name + ".launches")
        number = next(n for n in itertools.count() if not Path(scratch, str(n)).exists())
        self.scratch = scratch / str(number)
        self.scratch.mkdir(parents=True)
        file = self.scratch / "config.yaml"
        file.write_text(json.dumps(config))  # JSON is YAML
        port = free_port()
        self.processes: list[BaseProcess] = []
        for rank in range(num_ranks):
            variables = Launch.local(num_ranks, rank, port).environment() | (launcher or {})
            variables |= {environment.SETTLED: "1", "DS_ACCELERATOR": "cpu", VARIABLE: failpoints}
            variables["OMP_NUM_THREADS"] = "1"
            variables["BIGFT_CACHE"] = os.environ["BIGFT_CACHE"]
            if places is not None:
                places.mkdir(exist_ok=True)
                variables[VARIABLE] = ";".join(filter(None, ["*=list", failpoints]))
                variables[LIST_VARIABLE] = str(places / str(rank))
            process = _context.Process(
                target=_rank, args=(variables, str(file), self._log(rank), seconds_per_fsync, cwd)
            )
            process.start()
            self.processes.append(process)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self.processes:
            process.kill()
            process.join()

    def send(self, rank: int, number: int) -> None:
        pid = self.processes[rank].pid
        assert pid is not None
        os.kill(pid, number)

    def wait(self, seconds: float = PATIENCE) -> list[int]:
        """Exit codes by rank; -9 of one that was killed.

        Fails if a rank still runs after so many seconds.
        """
        deadline = time.monotonic() + seconds
        for rank, process in enumerate(self.processes):
            process.join(max(0.0, deadline - time.monotonic()))
            assert process.exitcode is not None, f"rank {rank} hangs\n{self.output()}"
        return [process.exitcode or 0 for process in self.processes]

    def wait_until_held(self, rank: int) -> None:
        """Returns when a failpoint's `stop` holds the rank; `send(rank, SIGCONT)` lets it go on."""
        self.wait_until(lambda: _state(self.processes[rank].pid) == "T")

    def wait_until(self, true: Callable[[], bool]) -> None:
        """Fails if it does not come true, or a rank ends before."""
        deadline = time.monotonic() + PATIENCE
        while not true():
            ended = [process.exitcode for process in self.processes]
            assert ended.count(None) == len(ended), f"ended with {ended}\n{self.output()}"
            assert time.monotonic() < deadline, f"waited in vain\n{self.output()}"
            time.sleep(0.001)

    def output(self) -> str:
        """What the ranks printed."""
        ranks = range(len(self.processes))
        return "".join(f"-- rank {rank} --\n{Path(self._log(rank)).read_text()}" for rank in ranks)

    def _log(self, rank: int) -> str:
        path = self.scratch / f"rank-{rank}.txt"
        path.touch()
        return str(path)


def finish(config: Config, num_ranks: int = 2, **options: Any) -> Ranks:
    """The launch of a run that must end well."""
    with Ranks(config, num_ranks, **options) as ranks:
        assert ranks.wait() == [0] * num_ranks, ranks.output()
    return ranks


def resumed(config: Config) -> Config:
    return {**config, "train": {**config["train"], "resume_from_checkpoint": True}}


# -- what must be left ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Left:
    """What a finished run leaves that must not depend on what happened to it, to the last bit."""

    measured: list[dict[str, Any]]  # every log line and evaluation, in the order of steps
    results: dict[str, Any]
    model: dict[str, str]  # the SHA-256 of each file of weights


def left_by(config: Config) -> Left:
    directory = Path(config["train"]["output_dir"])
    events = read_metrics(directory / "metrics.jsonl")
    measured = [_untimed(event) for event in events if event["event"] in ("log", "eval")]
    measured.sort(key=lambda event: (event["step"], event["event"], event.get("split", "")))
    files = sorted(Path(directory, "model").glob("*.safetensors"))
    assert files
    results = json.loads((directory / "all_results.json").read_text())
    hashes = {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}
    return Left(measured, _untimed(results), hashes)


def assert_same(ours: Left, theirs: Left) -> None:
    for mine, other in zip(ours.measured, theirs.measured, strict=True):
        assert mine == other  # the first step that differs is what one wants to know
    assert ours == theirs


def logged_steps(config: Config) -> list[int]:
    """The step of each log line in the file: one that was done twice is there twice."""
    lines = Path(config["train"]["output_dir"], "metrics.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines if line.endswith("}")]
    return [event["step"] for event in events if event["event"] == "log"]


def _untimed(record: dict[str, Any]) -> dict[str, Any]:
    ends = ("runtime", "per_second", "memory_mib")
    return {
        name: value
        for name, value in record.items()
        if name not in TIMED and not name.endswith(ends)
    }


# -- places ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Places:
    """The failpoints that one rank passed in a run that nothing happened to, in their order."""

    names: list[str]

    @classmethod
    def of(cls, directory: Path, rank: int) -> Places:
        return cls((directory / str(rank)).read_text().split())

    @property
    def ends(self) -> list[int]:
        """Where each step ends: names[:ends[0]] is the start and the first step."""
        return [at + 1 for at, name in enumerate(self.names) if name == "step.done"]

    def in_steps(self, first: int, last: int, kind: str) -> list[int]:
        """Where a failpoint of the kind ("step", "checkpoint", ...) was passed from step `first` on
        (steps count from 1) and before the step after `last`."""
        ends = [0, *self.ends, len(self.names)]
        begin = 0 if first == 1 else ends[first - 1]
        end = next(
            (at for at in range(ends[last], len(self.names)) if self.names[at] == "step.forward"),
            len(self.names),
        )
        return [at for at in range(begin, end) if self.names[at].partition(".")[0] == kind]

    def spec(self, at: int, done: int, action: str) -> str:
        """BIGFT_FAILPOINTS for the place `at` in a run that goes on after so many steps."""
        start = next(n for n, name in enumerate(self.names) if name == "step.forward")
        skipped = range(start, self.ends[done - 1]) if done else range(0)
        hit = sum(self.names[n] == self.names[at] for n in range(at + 1) if n not in skipped)
        return f"{self.names[at]}={action}@{hit}"


def _name_places() -> None:
    """Failpoints in what bigft calls: at every module of a forward (`start.forward` outside of the
    engine, then `step.forward`, `evaluate.forward`, `generate.forward`), before each update of the
    optimizer's (`step.optimizer`), and after a step (`step.done`)."""
    from deepspeed import DeepSpeedEngine
    from torch.nn.modules.module import register_module_forward_pre_hook
    from torch.optim.optimizer import register_optimizer_step_pre_hook
    from transformers import GenerationMixin

    doing = "start"

    def telling(method: Callable[..., Any], what: Callable[[Any], str]) -> Callable[..., Any]:
        def told(self: Any, *args: Any, **options: Any) -> Any:
            nonlocal doing
            before, doing = doing, what(self)
            try:
                return method(self, *args, **options)
            finally:
                doing = before

        return told

    def step_and_tell(engine: Any, *args: Any, **options: Any) -> None:
        step(engine, *args, **options)
        failpoint("step.done")

    step = DeepSpeedEngine.step
    DeepSpeedEngine.step = step_and_tell
    DeepSpeedEngine.__call__ = telling(
        DeepSpeedEngine.__call__, lambda engine: "step" if engine.module.training else "evaluate"
    )
    GenerationMixin.generate = telling(GenerationMixin.generate, lambda model: "generate")
    register_module_forward_pre_hook(lambda *_: failpoint(f"{doing}.forward"))
    register_optimizer_step_pre_hook(lambda *_: failpoint("step.optimizer"))


def _rank(
    variables: dict[str, str], config: str, log: str, seconds_per_fsync: float, cwd: Path
) -> None:
    import torch

    from bigft.cli import main

    output = os.open(log, os.O_WRONLY | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.environ.update(variables)
    os.chdir(cwd)
    torch.set_num_threads(1)  # bits depend on it, and two cores serve all ranks
    _name_places()
    fsync = os.fsync
    os.fsync = lambda file: (time.sleep(seconds_per_fsync), fsync(file))[1]
    try:
        code = main(["train", config])
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # as a rank of its own would: no exit handlers of the fork server's


def _state(pid: int | None) -> str:
    stat = Path(f"/proc/{pid}/stat")
    return stat.read_text().rpartition(")")[2].split()[0] if stat.exists() else ""
