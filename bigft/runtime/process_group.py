"""The ranks of a run: joining, counting, leaving.

Host numbers (targets of a step, stop flags) travel on a gloo group beside the accelerator's, so
that agreeing on them never makes the host wait for the accelerator.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
import re
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed import HashStore, TCPStore  # type: ignore[attr-defined]
from torch.distributed.rendezvous import rendezvous

from bigft.runtime.launcher import Launch

# torchrun sets it to "True" where its agent already listens on MASTER_PORT for the ranks.
AGENT_LISTENS = "TORCHELASTIC_USE_AGENT_STORE"
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


def join(launch: Launch, timeout_seconds: int, init_method: str | None = None) -> World:
    """Forms the process group (gloo on CPUs, NCCL on GPUs) and returns this rank's World.

    Ranks that meet on a loopback address talk on the loopback interface alone; GLOO_SOCKET_IFNAME
    wins over that.
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
        device = torch.device("cuda", device_index(launch, torch.cuda.device_count()))
        torch.cuda.set_device(device)
    timeout = datetime.timedelta(seconds=timeout_seconds + SECONDS_AFTER_THE_WATCHDOG)
    if init_method is None:
        store = _meet(launch, timeout)
    else:
        store, *_ = next(rendezvous(init_method, launch.rank, launch.world_size, timeout=timeout))
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


def _meet(launch: Launch, timeout: datetime.timedelta) -> Any:
    """The store where the ranks find each other; returns when all of them have come."""
    if launch.world_size == 1:
        return HashStore()  # nobody to wait for: no port
    host, port = launch.master_addr, launch.master_port
    listens = launch.rank == 0 and os.environ.get(AGENT_LISTENS) != "True"
    listener = None
    if _is_loopback(host):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        if listens:  # torch would listen on every interface of the machine
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listener = socket.create_server((host, port), family=family).detach()
    return TCPStore(host, port, launch.world_size, listens, timeout, master_listen_fd=listener)


def lost_peer(error: BaseException) -> str:
    """A sentence if the error says that another rank is gone; else "". Torch's own goes on about
    its source files."""
    said = re.search(r"[Cc]onnection (?:closed|reset) by peer(?: \[([^\]]+)\])?", str(error))
    if said is None:
        return ""
    where = f" at {said[1]}" if said[1] else ""
    return f"a rank{where} died: its connection was closed; its own log, or Slurm, says why"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def leave() -> None:
    """Every rank waits for the others and leaves; without it, ranks were seen to abort at exit."""
    if dist.is_initialized():
        dist.barrier()
        dist.destroy_process_group()
