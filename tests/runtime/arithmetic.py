"""What ranks of test_machine.py do."""

from __future__ import annotations

import torch

from bigft.runtime.machine import arithmetic, peak_memory_mib
from bigft.runtime.process_group import World


def told_with_threads(world: World, threads: list[int]) -> dict[str, str]:
    torch.set_num_threads(threads[world.rank])
    return arithmetic(world)


def peaks_of_a_large_rank(world: World) -> tuple[float, float]:
    """The peak before and after rank 1 has held 300 MiB for a moment."""
    before = peak_memory_mib(world)
    if world.rank == 1:
        assert len(bytearray(b"\1") * (300 * 2**20)) > 0
    return before, peak_memory_mib(world)
