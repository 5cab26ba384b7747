"""A store's surroundings without DeepSpeed: small shards, and ranks that are forks."""

from __future__ import annotations

import contextlib
import json
import os
import traceback
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from bigft.runtime import failpoints
from bigft.runtime.run_directory import RunDirectory
from bigft.training.checkpoint import CheckpointStore, TrainerState
from bigft.training.checkpoint.files import HashingFile, Stamp, Tick, make_directory
from bigft.training.checkpoint.manifest import COMMIT, MANIFEST, commit_text


@dataclass
class SmallWorld:
    """Two ranks at most, which talk over a pipe; what World offers the store."""

    rank: int = 0
    size: int = 1
    pipe: Connection | None = None

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        if self.pipe is None:
            return [value]
        self.pipe.send(value)
        other = self.pipe.recv()
        return [value, other] if self.is_first else [other, value]

    def broadcast(self, value: Any) -> Any:
        return self.gather(value)[0]


class SmallEngine:
    """What an engine is to the store: every rank writes one shard of `size` bytes, in pieces.

    read: the checkpoints that were given to deserialise.
    """

    def __init__(self, rank: int = 0, size: int = 40) -> None:
        self.rank, self.size, self.step = rank, size, 0
        self.read: list[Path] = []
        self.checkpoint_engine = self

    def content(self) -> bytes:
        return (f"rank {self.rank} at step {self.step} " * self.size).encode()[: self.size]

    def save_shards(
        self, engine: Any, checkpoint: Path, tick: Tick
    ) -> tuple[dict[str, Stamp], str]:
        shard = checkpoint / "ds" / f"shard-{self.rank}.pt"
        try:
            with contextlib.suppress(FileExistsError):
                make_directory(shard.parent)
            with HashingFile(shard, tick) as file:
                for at in range(0, self.size, self.size // 8):
                    file.write(self.content()[at : at + self.size // 8])
        except OSError as error:
            return {}, f"cannot write {shard.name}: {error.strerror}"
        return {f"ds/{shard.name}": file.stamp}, ""

    def load_shards(self, engine: Any, checkpoint: Path) -> None:
        self.read.append(checkpoint)
        (checkpoint / "ds" / f"shard-{self.rank}.pt").read_bytes()


def store_in(
    directory: Path, world: Any = None, limit: int | None = None, strict: bool = False
) -> CheckpointStore:
    return CheckpointStore(RunDirectory(directory), world or SmallWorld(), limit, {}, strict)


def save(directory: Path, *steps: int, limit: int | None = None, **state: Any) -> list[int]:
    """Saves at each step, alone; the steps of the checkpoints in the end."""
    engine, store = SmallEngine(), store_in(directory, limit=limit)
    for engine.step in steps:
        saved = store.save(engine, TrainerState(step=engine.step, **state))
        assert saved.path == directory / f"checkpoint-{engine.step}", saved.why
    return steps_in(directory)


def steps_in(directory: Path) -> list[int]:
    return [step for step, _ in RunDirectory(directory).checkpoints()]


def forge(checkpoint: Path, change: Callable[[Any], Any]) -> None:
    """Writes what `change` makes of MANIFEST, and a COMMIT for it, as an attacker would."""
    text = json.dumps(change(json.loads((checkpoint / MANIFEST).read_bytes())))
    (checkpoint / MANIFEST).write_text(text)
    (checkpoint / COMMIT).write_text(commit_text(text.encode()))


def run_ranks(work: Callable[[SmallWorld], Any], size: int, failures: str = "") -> list[Any]:
    """`work` on each of one or two forked ranks; by rank what it returned (JSON), or minus the
    signal that killed it, or the traceback.

    failures: armed in each of them, as BIGFT_FAILPOINTS.
    """
    pipes = Pipe() if size == 2 else (None,)
    with TemporaryDirectory() as place:
        files = [Path(place, str(rank)) for rank in range(size)]
        children = []
        for rank, pipe in enumerate(pipes):
            child = os.fork()
            if child == 0:
                _rank(work, SmallWorld(rank, size, pipe), pipes, files[rank], failures)
            children.append(child)
        for pipe in filter(None, pipes):
            pipe.close()
        codes = [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]
        return [
            code if code < 0 else json.loads(file.read_bytes())
            for code, file in zip(codes, files, strict=True)
        ]


def _rank(
    work: Callable[[SmallWorld], Any],
    world: SmallWorld,
    pipes: tuple[Connection | None, ...],
    result: Path,
    failures: str,
) -> None:
    """Never returns. A rank that dies closes its end, and the other one sees it."""
    answer: Any = None
    try:
        for pipe in pipes:
            if pipe is not None and pipe is not world.pipe:
                pipe.close()
        # What a killed process wrote is there, synced or not: waiting for the disk shows nothing.
        os.fsync = lambda number: None  # type: ignore[assignment]
        failpoints.arm(failures, world.rank)
        answer = work(world)
    except BaseException:
        answer = traceback.format_exc()
    with contextlib.suppress(BaseException):
        failpoints.arm("")
        result.write_text(json.dumps(answer))
    os._exit(0)


def in_light_process(check: Callable[..., Any], *args: Any) -> Any:
    """`check(*args)` in a process without torch, for checks that fork hundreds of ranks: a fork of
    one that has torch and transformers loaded takes up to 0.2 s."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(check, *args).result()
