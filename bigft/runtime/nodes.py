"""Whether the nodes of a job can train together: found out by one process per node, before there
are ranks. The first node listens where training will; what one node finds, all learn from it."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import secrets
import shutil
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import HashStore, PrefixStore, TCPStore  # type: ignore[attr-defined]

from bigft import __version__
from bigft.config.errors import BadInput, Problem
from bigft.runtime.launcher import Launch
from bigft.runtime.process_group import choose_accelerator
from bigft.runtime.rendezvous import reach

PACKAGES = ("torch", "transformers", "deepspeed")
MIN_FREE_BYTES = 100 * 2**20
SECONDS_TO_SEE_A_FILE = 30.0  # network file systems lag
SECONDS_FOR_A_SUM = 60
SECONDS_TO_LEAVE = 5.0
SECONDS_TO_SAY_SO = 30.0  # the first node waits for this much longer than the others
LEAVE_OUT = "look at its log, or leave it out (sbatch --exclude)"
INTERFACE = "set GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME in site.sh to the nodes' network"


class Unfit(BadInput):
    """What is wrong with some nodes, as all nodes were told: one of them tells the user."""


@dataclass(frozen=True, slots=True)
class Meeting:
    """This process's place among the nodes.

    names: the nodes' names, by rank.  seconds: how long the first node waits for an answer.
    """

    store: Any
    rank: int
    names: Sequence[str]
    seconds: float

    def exchange(self, subject: str, value: Any) -> list[Any]:
        """What every node says of a subject (JSON values), by rank.

        Collective. The first node collects and tells, so that all of them know the same.
        Raises Unfit if a node says nothing.
        """
        self.store.set(f"{subject}/{self.rank}", json.dumps(value))
        if self.rank == 0:
            deadline = time.monotonic() + self.seconds + SECONDS_TO_SAY_SO
            keys = [f"{subject}/{rank}" for rank in range(len(self.names))]
            said = [self._read(key, deadline - time.monotonic()) for key in keys]
            self.store.set(subject, json.dumps(said))
        told: list[Any] | None = self._read(subject, self.seconds + 2 * SECONDS_TO_SAY_SO)
        if told is None:
            raise BadInput(Problem(self.names[0], "no longer answers", LEAVE_OUT))
        silent = [name for name, what in zip(self.names, told, strict=True) if what is None]
        if silent:
            what = f"did not answer within {self.seconds + SECONDS_TO_SAY_SO:.0f} s ({subject})"
            raise Unfit([Problem(name, what, LEAVE_OUT) for name in silent])
        return told

    def settle(self, subject: str, wrong: str, fix: str) -> None:
        """Raises Unfit, on every node, if any of them says that something is wrong.

        wrong: of this node; "" if it is well. Collective.
        """
        told = zip(self.names, self.exchange(subject, wrong), strict=True)
        if problems := [Problem(name, what, fix) for name, what in told if what]:
            raise Unfit(problems)

    def leave(self) -> None:
        """The first node, which keeps what was said, leaves last."""
        deadline = time.monotonic() + SECONDS_TO_LEAVE
        with contextlib.suppress(RuntimeError):  # the first one is gone: nothing to wait for
            left = self.store.add("left", 1)
            while self.rank == 0 and left < len(self.names) and time.monotonic() < deadline:
                time.sleep(0.05)
                left = self.store.add("left", 0)

    def _read(self, key: str, seconds: float) -> Any:
        try:
            self.store.wait([key], datetime.timedelta(seconds=max(0.001, seconds)))
        except RuntimeError:  # torch's DistStoreError: not in time, or the first node is gone
            return None
        return json.loads(self.store.get(key))


def examine(
    launch: Launch,
    names: Sequence[str],
    config_hash: str,
    directory: Path,
    seconds: float,
    wrong: str = "",
) -> dict[str, str]:
    """What all nodes have alike: versions, config, number of GPUs. Collective.

    launch: one rank per node.  names: of the nodes, by rank.  directory: where the run will
    write.  seconds: how long a node tries to reach the first one.
    wrong: what is known to be wrong with this node.
    Raises Unfit on every node that answers, with what is wrong with each; BadInput on a node that
    cannot reach the first one.
    """
    store = _open_store(launch, names, seconds) if launch.world_size > 1 else HashStore()
    meeting = Meeting(store, launch.rank, names, seconds)
    own_probe = directory / f".bigft-node-{secrets.token_hex(8)}"
    try:
        meeting.settle("start", wrong, "")
        all_facts = meeting.exchange("facts", _facts(config_hash))
        if problems := _differences(names, all_facts):
            raise Unfit(problems)
        unwritable = _write(own_probe) if launch.rank == 0 else ""
        probe = directory / meeting.exchange("probe", own_probe.name)[0]
        wrong = unwritable or _look(probe, launch.rank)
        meeting.settle("directory", wrong, "every node must see train.output_dir and have room")
        if launch.world_size > 1:
            meeting.settle("gloo", _sum(meeting, "gloo"), INTERFACE)
            if choose_accelerator() == "cuda":
                meeting.settle("nccl", _sum(meeting, "nccl"), INTERFACE)
    finally:
        if launch.rank == 0:
            own_probe.unlink(missing_ok=True)
        meeting.leave()
    first_facts: dict[str, str] = all_facts[0]
    return first_facts


def _open_store(launch: Launch, names: Sequence[str], seconds: float) -> Any:
    """The first node's store, where training's ranks will meet too."""
    where = f"{launch.master_addr}:{launch.master_port}"
    is_first = launch.rank == 0
    try:
        if not is_first:
            reach(launch.master_addr, launch.master_port, seconds)
        return TCPStore(
            launch.master_addr,
            launch.master_port,
            launch.world_size,
            is_first,
            timeout=datetime.timedelta(seconds=seconds),
            wait_for_workers=False,
        )
    except TimeoutError as error:
        fix = "see why with ping, or leave it out (sbatch --exclude)"
        raise BadInput(Problem(names[launch.rank], str(error), fix)) from error
    except (RuntimeError, ValueError) as error:
        what = f"cannot {'listen at' if is_first else 'talk to'} {where}: {_first_line(error)}"
        fix = "another program may have the port: set MASTER_PORT in site.sh"
        raise BadInput(Problem(names[launch.rank], what, fix)) from error


def _facts(config_hash: str) -> dict[str, str]:
    """What all nodes must have alike."""
    devices = torch.cuda.device_count() if choose_accelerator() == "cuda" else 0
    return {
        "bigft": __version__,
        "python": platform.python_version(),
        **{package: version(package) for package in PACKAGES},
        "config": config_hash,
        "GPUs": str(devices),
    }


def _differences(names: Sequence[str], facts: Sequence[Mapping[str, str]]) -> list[Problem]:
    fix = "every node must start from the same environment and files: see site.sh"
    return [
        Problem(name, f"{key} {theirs[key]}, but {names[0]} has {value}", fix)
        for name, theirs in zip(names[1:], facts[1:], strict=True)
        for key, value in facts[0].items()
        if theirs[key] != value
    ]


def _write(probe: Path) -> str:
    try:
        probe.write_bytes(b"")
    except OSError as error:
        return f"cannot write to {probe.parent} ({error.strerror})"
    return ""


def _look(probe: Path, rank: int) -> str:
    """Whether the first node's file is seen, can be replaced, and there is room beside it."""
    deadline = time.monotonic() + SECONDS_TO_SEE_A_FILE
    while not probe.exists():
        if time.monotonic() > deadline:
            return f"does not see what the first node writes to {probe.parent}"
        time.sleep(0.2)
    own = probe.with_name(f"{probe.name}-{rank}")
    if wrong := _write(own):
        return wrong
    own.unlink()
    for place in (probe.parent, Path(tempfile.gettempdir())):
        free = shutil.disk_usage(place).free
        if free < MIN_FREE_BYTES:
            return f"{place} has {free / 1e6:.0f} MB free, less than {MIN_FREE_BYTES / 1e6:.0f} MB"
    return ""


def _sum(meeting: Meeting, backend: str) -> str:
    """Adds up a number over all nodes; what went wrong with that."""
    size = len(meeting.names)
    os.environ["TORCH_NCCL_BLOCKING_WAIT"] = "1"  # a time-out raises instead of ending the process
    device = torch.device("cuda", 0) if backend == "nccl" else torch.device("cpu")
    try:
        dist.init_process_group(
            backend,
            store=PrefixStore(f"sum-{backend}", meeting.store),
            rank=meeting.rank,
            world_size=size,
            timeout=datetime.timedelta(seconds=SECONDS_FOR_A_SUM),
        )
        total = torch.full((1024,), float(meeting.rank + 1), device=device)
        dist.all_reduce(total)
        right = bool((total == size * (size + 1) / 2).all())
        dist.destroy_process_group()
    except RuntimeError as error:
        return f"a {backend} sum over all nodes failed: {_first_line(error)}"
    return "" if right else f"a {backend} sum over all nodes came out wrong"


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
