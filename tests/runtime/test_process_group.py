"""Ranks agree on sums and values; a world of one agrees with itself without a process group."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch
from distributed.ranks import run_ranks

from bigft.runtime.process_group import World, choose_accelerator, leave

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
