"""Who am I among the ranks, and how ranks are started on one machine."""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from bigft.config.errors import EXIT_INTERRUPTED, BadInput, Problem

LAUNCHER_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
SLURM_VARIABLES = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS")
# Steps from here on are Slurm's own (batch script, interactive shell): no srun started the process.
FIRST_RESERVED_SLURM_STEP = 0xFFFFFFF0
# Glibc reads them at process start only: pages stay with the process between steps, which speeds
# training on CPUs by a quarter.
MALLOC_SETTINGS = {
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "268435456",
}
SETTLED = "BIGFT_SETTLED"  # settings are applied and notes are told: not again
EXIT_FAILED = 1  # of a run that ended by itself, and not well
EXIT_RESUMABLE = 75  # of a rank that saved and stopped as a signal asked
EXIT_HUNG = 3  # of a rank that the watchdog ended
FORWARDED_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
# After the first rank ended: where it failed, the others may hang in a collective with it for good;
# where all stop as asked, the first one may still be writing.
SECONDS_TO_STOP = 5.0
SECONDS_TO_LEAVE = 30.0
# Python runs a handler when its main thread wakes; of two signals the second may reach another.
SECONDS_BETWEEN_LOOKS = 0.2
PR_SET_PDEATHSIG = 1


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


def detect(environ: Mapping[str, str]) -> Launch | None:
    """What the launcher says of this process; None if it was started by hand.

    torchrun, deepspeed and `bigft train` set RANK and its companions; they win over Slurm, which
    may be around them. deepspeed also passes --local_rank=N as an argument: the cli drops it.
    Raises: BadInput naming the variables that are missing, not numbers or contradict each other.
    """
    in_slurm_step = 0 <= int(environ.get("SLURM_STEP_ID", -1)) < FIRST_RESERVED_SLURM_STEP
    # Batch scripts often export WORLD_SIZE alone; under srun that does not make a launcher.
    if "RANK" in environ or "LOCAL_RANK" in environ:
        return _from_variables(environ)
    if in_slurm_step:
        return _from_slurm(environ)
    return _from_variables(environ) if "WORLD_SIZE" in environ else None


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


def environment_for_rank(rank: int, world: int, port: int, cores: int) -> dict[str, str]:
    """The variables of one rank of `world` on this machine, which share its cores equally."""
    launch = Launch(rank, rank, world, world, "127.0.0.1", port, "environment")
    return {**launch.environment(), "OMP_NUM_THREADS": str(max(1, cores // world))}


def process_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """What a rank's environment should hold and does not; the user's own values stay."""
    settings = {**MALLOC_SETTINGS, "TOKENIZERS_PARALLELISM": "false"}
    return {name: value for name, value in settings.items() if name not in environ}


def reexec_with(settings: Mapping[str, str]) -> None:
    """Applies the settings; starts this process anew, once, if one of them is read only at start.

    The process id stays, so launchers do not notice. Must run before anything is imported or
    started that a second start would repeat.
    """
    os.environ.update(settings)
    if SETTLED in os.environ or not MALLOC_SETTINGS.keys() & settings.keys():
        return
    os.environ[SETTLED] = "1"
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


@dataclass(frozen=True, slots=True)
class Ended:
    """How ranks ended: all with 0, or the first that did not.

    code: their exit code; 128 + n where the first one was ended by signal n.  why: a sentence that
    names it, "" where nothing failed.
    """

    code: int = 0
    rank: int = 0
    why: str = ""


def run_ranks(
    argv: Sequence[str],
    nproc: int,
    environ: Mapping[str, str],
    log_file: Callable[[int], Path] | None = None,
) -> Ended:
    """Runs `bigft <argv>` as nproc ranks on this machine; returns how they ended.

    When one fails the others get SIGTERM, and SIGKILL SECONDS_TO_STOP later. SIGTERM, SIGINT,
    SIGUSR1 and SIGUSR2 are passed on to every rank. No rank outlives this process, and no worker
    its rank, however they end.
    Must run in the main thread.

    log_file: the log of each rank, `RunDirectory.log_file`; what ranks above 0 print is appended to
    theirs, since the terminal is rank 0's. None: all ranks print to the terminal.
    """
    happenings: queue.SimpleQueue[int | signal.Signals] = queue.SimpleQueue()  # ranks, signals
    running: dict[int, subprocess.Popen[bytes]] = {}
    ended: Ended | None = None
    deadline = math.inf
    passed_on: set[int] = set()

    def wait_for(rank: int, process: subprocess.Popen[bytes]) -> None:
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        happenings.put(rank)

    port, cores = free_port(), len(os.sched_getaffinity(0))
    with _signals_into(happenings):
        try:
            for rank in range(nproc):
                settings = {**environ, **process_settings(environ)}
                settings |= environment_for_rank(rank, nproc, port, cores)
                settings[SETTLED] = "1"
                if "OMP_NUM_THREADS" in environ:
                    settings["OMP_NUM_THREADS"] = environ["OMP_NUM_THREADS"]
                log = log_file(rank) if log_file and rank > 0 else None
                running[rank] = _start(argv, settings, log)
            # One waiting thread per rank: exits are seen in the order in which they happen.
            for item in running.items():
                threading.Thread(target=wait_for, args=item, daemon=True).start()
            while running:
                try:
                    happening = happenings.get(timeout=SECONDS_BETWEEN_LOOKS)
                except queue.Empty:
                    if time.monotonic() > deadline:
                        for process in running.values():
                            _kill(process)
                        deadline = math.inf
                    continue
                if isinstance(happening, signal.Signals):
                    passed_on.add(happening)
                    _send(running, happening)
                    continue
                process = running.pop(happening)
                _kill(process)  # its workers; before it is reaped nobody else can have its id
                code = process.wait()
                if code != 0 and ended is None:
                    ended = _ended(happening, code, passed_on, log_file)
                    if ended.why:
                        print(f"bigft: {ended.why}", file=sys.stderr, flush=True)
                    _send(running, signal.SIGTERM)
                    deadline = time.monotonic() + (
                        SECONDS_TO_STOP if ended.why else SECONDS_TO_LEAVE
                    )
        finally:
            for process in running.values():
                _kill(process)
    return ended or Ended()


@contextlib.contextmanager
def _signals_into(happenings: queue.SimpleQueue[int | signal.Signals]) -> Iterator[None]:
    """Queued, not sent on by the handler: a signal during the start reaches all ranks too."""
    before = {
        number: signal.signal(number, lambda n, frame: happenings.put(signal.Signals(n)))
        for number in FORWARDED_SIGNALS
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _start(
    argv: Sequence[str], environ: Mapping[str, str], log: Path | None
) -> subprocess.Popen[bytes]:
    libc = ctypes.CDLL(None)
    parent = os.getpid()

    def die_with_parent() -> None:
        libc.prctl(PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL))
        if os.getppid() != parent:  # it died before the call above
            os._exit(1)

    with contextlib.ExitStack() as stack:
        output = stack.enter_context(log.open("ab")) if log else None
        return subprocess.Popen(
            [sys.executable, "-m", "bigft", *argv],
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            process_group=0,  # or Ctrl-C would reach the ranks twice
            preexec_fn=die_with_parent,
        )


def _send(running: Mapping[int, subprocess.Popen[bytes]], number: signal.Signals) -> None:
    for process in running.values():
        os.kill(process.pid, number)  # Popen's own way would reap it first


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Ends the rank and the workers that it started."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _ended(
    rank: int, code: int, passed_on: Set[int], log_file: Callable[[int], Path] | None
) -> Ended:
    # Asked for, so nothing failed; a rank that is just starting dies of what it will handle later.
    if signal.SIGINT in passed_on and code in (EXIT_INTERRUPTED, -signal.SIGINT):
        return Ended(EXIT_INTERRUPTED, rank)
    if code == EXIT_RESUMABLE or -code in passed_on:
        return Ended(EXIT_RESUMABLE, rank)
    how = f"exit code {code}" if code > 0 else signal.Signals(-code).name
    where = f"; its log: {log_file(rank)}" if log_file else ""
    why = f"rank {rank} ended first, by {how}{where}"
    return Ended(code if code > 0 else 128 - code, rank, why)
