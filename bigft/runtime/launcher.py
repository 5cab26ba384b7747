"""Who am I among the ranks, as the launcher says it."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from bigft.config.errors import BadInput, Problem

LAUNCHER_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
SLURM_VARIABLES = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS")
# Steps from here on are Slurm's own (batch script, interactive shell): no srun started the process.
FIRST_RESERVED_SLURM_STEP = 0xFFFFFFF0
SLURM_TERMINAL = "SLURM_PTY_PORT"  # set under `srun --pty`


@dataclass(frozen=True, slots=True)
class Launch:
    """This process's place among the ranks and where they meet."""

    rank: int
    local_rank: int
    world_size: int
    local_world_size: int
    master_addr: str
    master_port: int
    kind: Literal["torchrun", "deepspeed", "slurm", "environment"]

    @classmethod
    def local(cls, world_size: int, rank: int = 0, port: int | None = None) -> Launch:
        """One of the ranks that this machine has to itself. port: None: one that is free now."""
        port = free_port() if port is None else port
        return cls(rank, rank, world_size, world_size, "127.0.0.1", port, "environment")

    def environment(self) -> dict[str, str]:
        """The variables that torch.distributed and DeepSpeed read."""
        return {
            "RANK": str(self.rank),
            "LOCAL_RANK": str(self.local_rank),
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_WORLD_SIZE": str(self.local_world_size),
            "MASTER_ADDR": self.master_addr,
            "MASTER_PORT": str(self.master_port),
        }


def detect(environ: Mapping[str, str], nproc: int | None = None) -> Launch | None:
    """What the launcher says of this process; None if it was started by hand, or is the only one of
    a Slurm step: a shell (`srun --pty bash`), or told to start ranks itself.

    torchrun, deepspeed and `bigft train` set RANK and its companions; they win over Slurm, which
    may be around them. deepspeed also passes --local_rank=N as an argument: the cli drops it.
    nproc: --nproc, the ranks that this process is to start.
    Raises: BadInput naming the variables that are missing, not numbers or contradict each other or
    --nproc.
    """
    # Batch scripts often export WORLD_SIZE alone; under srun that does not make a launcher.
    if "RANK" in environ or "LOCAL_RANK" in environ:
        launch = _from_variables(environ)
    elif 0 <= int(environ.get("SLURM_STEP_ID", -1)) < FIRST_RESERVED_SLURM_STEP:
        starts_ranks = nproc is not None or SLURM_TERMINAL in environ
        if starts_ranks and environ.get("SLURM_NTASKS") == "1":
            return None
        launch = _from_slurm(environ)
    elif "WORLD_SIZE" in environ:
        launch = _from_variables(environ)
    else:
        return None
    if nproc not in (None, launch.local_world_size, launch.world_size):
        raise BadInput(_two_launchers(launch, nproc))
    return launch


def _two_launchers(launch: Launch, nproc: int) -> Problem:
    started_by = {"slurm": "srun", "environment": "another launcher"}.get(launch.kind, launch.kind)
    variables = ["SLURM_STEP_ID"] if launch.kind == "slurm" else [*LAUNCHER_VARIABLES]
    return Problem(
        "--nproc",
        f"{nproc}, but by {variables[0]} this process is rank {launch.rank} of "
        f"{launch.world_size} that {started_by} started",
        f"leave --nproc out; if there are no such ranks, unset {' '.join(variables)}",
    )


def _from_variables(environ: Mapping[str, str]) -> Launch:
    _require(environ, LAUNCHER_VARIABLES)
    number = partial(_number, environ)
    local_world = next((n for n in ("LOCAL_WORLD_SIZE", "LOCAL_SIZE") if n in environ), None)
    kind: Literal["torchrun", "deepspeed", "environment"] = "environment"
    if "TORCHELASTIC_RUN_ID" in environ:
        kind = "torchrun"
    elif local_world == "LOCAL_SIZE":
        kind = "deepspeed"
    launch = Launch(
        rank=number("RANK"),
        local_rank=number("LOCAL_RANK"),
        world_size=number("WORLD_SIZE"),
        local_world_size=number(local_world) if local_world else number("LOCAL_RANK") + 1,
        master_addr=environ["MASTER_ADDR"],
        master_port=number("MASTER_PORT"),
        kind=kind,
    )
    _check(launch, "RANK", "WORLD_SIZE", "LOCAL_RANK", local_world or "LOCAL_WORLD_SIZE")
    return launch


def _from_slurm(environ: Mapping[str, str]) -> Launch:
    _require(environ, SLURM_VARIABLES)
    number = partial(_number, environ)
    world = number("SLURM_NTASKS")
    if "WORLD_SIZE" in environ and number("WORLD_SIZE") != world:
        raise BadInput(
            Problem(
                "environment: WORLD_SIZE",
                f"{environ['WORLD_SIZE']}, but SLURM_NTASKS is {world}",
                "unset WORLD_SIZE: under srun every task is one rank",
            )
        )
    tasks = _tasks_per_node(environ.get("SLURM_STEP_TASKS_PER_NODE", str(world)))
    if len(tasks) > 1 and "MASTER_ADDR" not in environ:
        raise BadInput(
            Problem(
                "environment: MASTER_ADDR",
                f"not set, in a step of {len(tasks)} nodes",
                'export the first host of `scontrol show hostnames "$SLURM_JOB_NODELIST"`',
            )
        )
    port = 15000 + int(environ.get("SLURM_JOB_ID", "0")) % 15000  # below the ephemeral ports
    launch = Launch(
        rank=number("SLURM_PROCID"),
        local_rank=number("SLURM_LOCALID"),
        world_size=world,
        local_world_size=tasks[int(environ.get("SLURM_NODEID", "0"))],
        # Ranks of one node need no network, whatever the script exports.
        master_addr=environ["MASTER_ADDR"] if len(tasks) > 1 else "127.0.0.1",
        master_port=number("MASTER_PORT") if "MASTER_PORT" in environ else port,
        kind="slurm",
    )
    _check(launch, "SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE")
    return launch


def _tasks_per_node(text: str) -> list[int]:
    """Slurm's "2(x3),1" is [2, 2, 2, 1]."""
    return [
        int(tasks)
        for tasks, nodes in re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
        for _ in range(int(nodes or 1))
    ]


def _require(environ: Mapping[str, str], names: Sequence[str]) -> None:
    found = [name for name in names if name in environ]
    problems = [
        Problem(
            f"environment: {name}",
            f"not set, although {' and '.join(found)} {'is' if len(found) == 1 else 'are'}",
            f"set all of {', '.join(names)} or none",
        )
        for name in names
        if name not in environ
    ]
    if problems:
        raise BadInput(problems)


def _number(environ: Mapping[str, str], name: str) -> int:
    if not environ[name].isdecimal():
        raise BadInput(
            Problem(f"environment: {name}", f"{environ[name]!r} is not a number of 0 or more")
        )
    return int(environ[name])


def _check(launch: Launch, rank: str, world: str, local_rank: str, local_world: str) -> None:
    """The names say which variables the numbers came from."""
    problems = [
        Problem(f"environment: {name}", f"{value} is not below {bound_name} ({bound})")
        for name, value, bound_name, bound in (
            (rank, launch.rank, world, launch.world_size),
            (local_rank, launch.local_rank, local_world, launch.local_world_size),
        )
        if value >= bound
    ]
    if problems:
        raise BadInput(problems)


def free_port() -> int:
    """A TCP port of this machine that nobody listens on now."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
