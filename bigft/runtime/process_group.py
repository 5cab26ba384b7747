"""The ranks of a run: joining, counting, leaving.

Host numbers (targets of a step, stop flags) travel on a gloo group beside the accelerator's, so
that agreeing on them never makes the host wait for the accelerator.
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from bigft.runtime.launcher import Launch


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

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier(group=self.host_group)


def join(launch: Launch, timeout_seconds: int, init_method: str | None = None) -> World:
    """Forms the process group (gloo on CPUs, NCCL on GPUs) and returns this rank's World.

    init_method: torch.distributed's; by default MASTER_ADDR and MASTER_PORT of the launch.
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
        device = torch.device("cuda", launch.local_rank)
        torch.cuda.set_device(device)
    timeout = datetime.timedelta(seconds=timeout_seconds)
    method = init_method or f"tcp://{launch.master_addr}:{launch.master_port}"
    dist.init_process_group(
        "nccl" if accelerator == "cuda" else "gloo",
        init_method=method,
        rank=launch.rank,
        world_size=launch.world_size,
        timeout=timeout,
        device_id=device if accelerator == "cuda" else None,
    )
    deepspeed.init_distributed(auto_mpi_discovery=False, verbose=False)
    host_group = None
    if launch.world_size > 1:
        host_group = dist.group.WORLD if accelerator == "cpu" else dist.new_group(backend="gloo")
    return World(launch.rank, launch.local_rank, launch.world_size, device, host_group)


def leave() -> None:
    """Every rank waits for the others and leaves; without it, ranks were seen to abort at exit."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
