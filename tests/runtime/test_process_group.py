"""Ranks agree on sums and values; a world of one agrees with itself without a process group."""

from __future__ import annotations

import ipaddress
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed.ranks import _context, run_ranks
from waiting import PATIENCE

from bigft.runtime.launcher import Launch, free_port
from bigft.runtime.process_group import (
    World,
    choose_accelerator,
    device_index,
    join,
    leave,
    lost_peer,
    meet,
)

ALONE = World(0, 0, 1, torch.device("cpu"), None)


def agree(world: World) -> dict[str, Any]:
    """What one rank sees of its world. Runs in a rank, so it is imported by name."""
    from torch import distributed as dist

    world.barrier()
    return {
        "rank": (world.rank, world.size, world.is_first),
        "sum": world.sum([world.rank + 1, (2**53 - 1) * world.is_first, 0.1]),
        "gather": world.gather({"rank": world.rank, "text": "é" * world.rank}),
        "joined": dist.is_initialized(),
        "environment": [os.environ[name] for name in ("RANK", "WORLD_SIZE", "DS_ACCELERATOR")],
    }


@pytest.mark.distributed
def test_ranks_agree_on_sums_and_values() -> None:
    answers = run_ranks(agree, 3)
    for rank, answer in enumerate(answers):
        assert answer["rank"] == (rank, 3, rank == 0)
        assert answer["sum"] == [6.0, 2.0**53 - 1, pytest.approx(0.3)]  # in fp64
        assert answer["gather"] == [{"rank": r, "text": "é" * r} for r in range(3)]
        assert answer["joined"]
        assert answer["environment"] == [str(rank), "3", "cpu"]


def test_one_rank_agrees_with_itself() -> None:
    assert ALONE.sum([1, 0.5]) == [1.0, 0.5]
    assert ALONE.gather({"a": 1}) == [{"a": 1}]
    ALONE.barrier()
    assert ALONE.is_first
    leave()  # nothing to leave


@pytest.mark.parametrize(
    ("asked", "cuda", "chosen"),
    [(None, False, "cpu"), (None, True, "cuda"), ("cpu", True, "cpu"), ("", False, "cpu")],
)
def test_the_accelerator_is_the_users_or_the_one_there_is(
    asked: str | None, cuda: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setenv("DS_ACCELERATOR", asked or "")
    if asked is None:
        monkeypatch.delenv("DS_ACCELERATOR")
    assert choose_accelerator() == chosen
    assert os.environ["DS_ACCELERATOR"] == chosen  # before deepspeed looks


def join_and_tell(rank: int, port: int, told: Path) -> None:
    """Writes the addresses that this rank listens on, and what its neighbour left in the store."""
    launch = Launch(rank, rank, 2, 2, "127.0.0.1", port, "environment")
    world = join(launch, 60, meet(launch, 60))
    world.store.set(f"of rank {rank}", str(rank))
    world.barrier()
    neighbour = world.store.get(f"of rank {1 - rank}").decode()
    told.write_text(json.dumps([listened_on(), neighbour]))
    leave()


def listened_on() -> list[str]:
    """Addresses of this process's listening sockets, as Linux tells them."""
    links = [os.readlink(link) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()]
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path("/proc/net", table).read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == "0A" and f"socket:[{inode}]" in links:
                raw = bytes.fromhex(local.partition(":")[0])
                words = [raw[at : at + 4][::-1] for at in range(0, len(raw), 4)]
                found.append(str(ipaddress.ip_address(b"".join(words))))
    return found


@pytest.mark.distributed
def test_ranks_of_one_machine_listen_on_its_loopback_only(tmp_path: Path) -> None:
    """Who reaches the rendezvous could take part in it."""
    port = free_port()
    ranks = [
        _context.Process(target=join_and_tell, args=(rank, port, tmp_path / str(rank)))
        for rank in range(2)
    ]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(PATIENCE)
        assert process.exitcode == 0
    for rank in range(2):
        addresses, neighbour = json.loads((tmp_path / str(rank)).read_text())
        assert addresses  # rank 0's store, gloo's pairs
        assert all(ipaddress.ip_address(address).is_loopback for address in addresses)
        assert neighbour == str(1 - rank)


@pytest.mark.parametrize(("visible", "index"), [(8, 3), (4, 3), (1, 0)])
def test_the_only_gpu_that_a_rank_sees_is_its_own(visible: int, index: int) -> None:
    """`srun --gpus-per-task=1` shows each task one, and all call it 0."""
    launch = Launch(3, 3, 4, 4, "n1", 20123, "slurm")
    assert device_index(launch, visible) == index


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "[gloo/transport/tcp/pair.cc:553] Connection closed by peer [10.77.0.2]:60651. This is",
            "a rank at 10.77.0.2 died: its connection was closed; its own log, or Slurm, says why",
        ),
        (
            "NCCL error: socketProgress: Connection reset by peer",
            "a rank died: its connection was closed; its own log, or Slurm, says why",
        ),
        ("CUDA out of memory", ""),
    ],
)
def test_what_torch_says_of_a_rank_that_is_gone_is_told_in_a_sentence(said: str, told: str) -> None:
    assert lost_peer(RuntimeError(said)) == told
