"""What ranks of test_machine.py do."""

from __future__ import annotations

import torch

from bigft.runtime.machine import arithmetic
from bigft.runtime.process_group import World


def told_with_threads(world: World, threads: list[int]) -> dict[str, str]:
    torch.set_num_threads(threads[world.rank])
    return arithmetic(world)
