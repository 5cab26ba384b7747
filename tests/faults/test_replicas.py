"""A bit that flips in one rank's copy of a weight is found, with the weight's name and the rank."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from distributed.ranks import run_ranks
from faults.sick_steps import Layout, Sick, batches_of, tiny_engine

from bigft.runtime.process_group import World
from bigft.training.replicas import differing
from bigft.training.step import train_step

pytestmark = pytest.mark.distributed

WEIGHT = "transformer.h.1.mlp.c_fc.bias"


def flip_a_bit(world: World, layout: Layout, sick_rank: int, bit: int) -> tuple[str, str]:
    """What is found after two steps, and after a bit of one weight has flipped on one rank."""
    engine = tiny_engine(world, layout)
    for step in range(2):
        task: Any = Sick("", engine.module)
        train_step(engine, task, batches_of(world, step), 100, world, 0, step)
    before = differing(engine, world)
    weights = dict(engine.module.named_parameters())
    (name,) = [name for name in weights if name.endswith(WEIGHT)]
    if world.rank == sick_rank:
        data = weights[name].data
        integers = data.view(torch.int16 if data.element_size() == 2 else torch.int32)
        integers[5] ^= 1 << bit
    found = differing(engine, world).replace(name, WEIGHT)
    engine.destroy()
    return before, found


@pytest.mark.parametrize(
    ("layout", "bit"),
    [
        (Layout(0), 0),
        (Layout(2, "bf16"), 15),
        (Layout(3), 12),  # small weights, which ZeRO-3 keeps gathered
        (Layout(2, lora=True), 3),  # a frozen weight
    ],
    ids=str,
)
def test_a_flipped_bit_is_found_on_every_rank(layout: Layout, bit: int) -> None:
    for before, found in run_ranks(flip_a_bit, 2, layout, 1, bit):
        assert before == ""
        # Of two copies nobody knows which one is right.
        assert found == f"ranks no longer hold the same weights: {WEIGHT} differ on rank 0 and 1"


def test_the_rank_that_the_others_outvote_is_named() -> None:
    for before, found in run_ranks(flip_a_bit, 3, Layout(0), 2, 0):
        assert before == ""
        assert found.endswith(f"{WEIGHT} differ on rank 2")
