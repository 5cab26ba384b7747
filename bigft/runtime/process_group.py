"""The ranks of a run: joining, counting, leaving.

Host numbers (targets of a step, stop flags) travel on a gloo group beside the accelerator's, so
that agreeing on them never makes the host wait for the accelerator.
"""

from __future__ import annotations

import datetime
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from bigft.runtime import rendezvous
from bigft.runtime.launcher import Launch

# Torch's own time-outs end a rank that waits; the watchdog, which knows for whom, comes first.
SECONDS_AFTER_THE_WATCHDOG = 120


def choose_accelerator() -> str:
    """DS_ACCELERATOR where the user set it, else "cuda" or "cpu"; sets it for deepspeed to see."""
    chosen = os.environ.get("DS_ACCELERATOR") or ("cuda" if torch.cuda.is_available() else "cpu")
    os.environ["DS_ACCELERATOR"] = chosen
    return chosen


@dataclass(frozen=True, slots=True)
class World:
    """This process's place among the ranks."""

    rank: int
    local_rank: int
    size: int
    device: torch.device
    host_group: Any  # a gloo group; None in a world of one, where nothing has to be agreed on
    store: Any = None  # a torch.distributed.Store of this rank's own, beside the groups; or None

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def sum(self, numbers: Sequence[float]) -> list[float]:
        """The numbers added up over all ranks, in fp64. Collective; never touches the device."""
        if self.size == 1:
            return [float(number) for number in numbers]
        total = torch.tensor(numbers, dtype=torch.float64)
        dist.all_reduce(total, group=self.host_group)
        return total.tolist()

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value (plain Python data), by rank, on every rank. Collective."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value, group=self.host_group)
        return values

    def broadcast(self, value: Any) -> Any:
        """The first rank's value (plain Python data) on every rank. Collective."""
        return self.gather(value)[0]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank. Collective."""
        return self.sum([int(flag)])[0] > 0

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier(group=self.host_group)


def meet(launch: Launch, timeout_seconds: int) -> Any:
    """Waits for all ranks; the store in which they found each other, for `join`.

    Apart from it, since this waiting may be interrupted, and that in `join` may not.
    """
    return rendezvous.meet(launch, timeout_seconds + SECONDS_AFTER_THE_WATCHDOG)


def join(launch: Launch, timeout_seconds: int, store: Any) -> World:
    """Forms the process group (gloo on CPUs, NCCL on GPUs) and returns this rank's World.

    store: a torch.distributed.Store of all ranks: what `meet` returned.
    """
    accelerator = choose_accelerator()
    os.environ.update(launch.environment())  # DeepSpeed reads them, whoever launched
    import deepspeed
    import deepspeed.ops

    # On CPUs init_distributed would compile a shared-memory operator that training never uses
    # and that leaks 66 MiB of /dev/shm per rank and run (docs/lab-log.md).
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    device = torch.device("cpu")
    if accelerator == "cuda":
        device = torch.device("cuda", device_index(launch, torch.cuda.device_count()))
        torch.cuda.set_device(device)
    timeout = datetime.timedelta(seconds=timeout_seconds + SECONDS_AFTER_THE_WATCHDOG)
    dist.init_process_group(
        "nccl" if accelerator == "cuda" else "gloo",
        store=store,
        rank=launch.rank,
        world_size=launch.world_size,
        timeout=timeout,
        device_id=device if accelerator == "cuda" else None,
    )
    deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)
    host_group = own_store = None
    if launch.world_size > 1:
        host_group = dist.group.WORLD if accelerator == "cpu" else dist.new_group(backend="gloo")
        own_store = store.clone()
    return World(launch.rank, launch.local_rank, launch.world_size, device, host_group, own_store)


def device_index(launch: Launch, visible: int) -> int:
    """Which of the visible GPUs is this rank's: of several its local rank's; `srun
    --gpus-per-task=1` shows every rank one, its own."""
    return 0 if visible == 1 else launch.local_rank


def lost_peer(error: BaseException) -> str:
    """A sentence if the error says that another rank is gone; else "". Torch's own goes on about
    its source files."""
    said = re.search(r"[Cc]onnection (?:closed|reset) by peer(?: \[([^\]]+)\])?", str(error))
    if said is None:
        return ""
    where = f" at {said[1]}" if said[1] else ""
    return f"a rank{where} died: its connection was closed; its own log, or Slurm, says why"


def leave() -> None:
    """Every rank waits for the others and leaves; without it, ranks were seen to abort at exit."""
    if dist.is_initialized():
        dist.barrier()
        dissolve()


def dissolve() -> None:
    """Forgets the process group, and those that DeepSpeed made of it, so that another may be formed
    in this process; waits for nobody."""
    import deepspeed.comm

    if deepspeed.comm.is_initialized():
        deepspeed.comm.destroy_process_group()
    else:  # it failed before DeepSpeed knew
        dist.destroy_process_group()
