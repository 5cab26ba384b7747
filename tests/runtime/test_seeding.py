"""A seed is a hash of where it is used: the same in every process, another everywhere else."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from bigft.runtime.seeding import address, seed_dropout, seed_everything

REPOSITORY = Path(__file__).resolve().parents[2]
PARTS = st.lists(st.one_of(st.integers(), st.text(max_size=5)), min_size=1, max_size=4)


def masks(*where: int) -> torch.Tensor:
    seed_dropout(*where)
    return torch.rand(64)


@given(PARTS)
def test_an_address_is_a_seed_that_torch_takes(parts: list[int | str]) -> None:
    assert 0 <= address(*parts) < 2**63
    torch.Generator().manual_seed(address(*parts))


def test_an_address_is_the_same_in_every_process_and_version() -> None:
    # Written down: checkpoints of older versions resume with these seeds.
    assert address(42, "model") == 1623069769197575353
    assert address(0, "dropout", 3, 1, 2) == 110545343436276958
    program = "from bigft.runtime.seeding import address; print(address(42, 'model'))"
    environment = os.environ | {"PYTHONHASHSEED": "1", "PYTHONPATH": str(REPOSITORY)}
    other = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, check=True
    )
    assert int(other.stdout) == address(42, "model")


def test_every_part_of_an_address_counts_and_so_does_its_place() -> None:
    where = list(product(range(3), ["dropout", "mask"], range(11), range(11), range(4)))
    assert len({address(*parts) for parts in where}) == len(where)
    assert address(1, 23) != address(12, 3)
    assert address("ab", "c") != address("a", "bc")
    assert address(1) != address(1, 0)


def test_seeding_everything_brings_back_every_generator() -> None:
    def draw() -> tuple[float, float, list[float]]:
        return random.random(), np.random.rand(), torch.rand(3).tolist()

    seed_everything(1, "model")
    first = draw()
    assert draw() != first
    seed_everything(1, "model")
    assert draw() == first
    seed_everything(2, "model")
    assert all(ours != theirs for ours, theirs in zip(draw(), first, strict=True))


def test_a_step_that_is_done_again_draws_the_masks_of_the_first_try() -> None:
    first = masks(42, 7, 1, 0)
    masks(42, 8, 0, 0)
    assert torch.equal(masks(42, 7, 1, 0), first)


def test_no_two_forwards_of_a_run_share_their_masks() -> None:
    where = [
        (42, step, micro, rank) for step in range(4) for micro in range(3) for rank in range(3)
    ]
    drawn = {tuple(masks(*one).tolist()) for one in where}
    assert len(drawn) == len(where)
    assert tuple(masks(43, 0, 0, 0).tolist()) not in drawn
