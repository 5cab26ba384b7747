"""Whether the ranks' copies of the weights are still the same: memory and links do flip bits."""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch

from bigft.runtime.process_group import World

_INTEGERS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def differing(engine: Any, world: World) -> str:
    """ "" where every rank holds the same bits, else a sentence with parameters and ranks.

    Compares what each rank has a whole copy of: all parameters at ZeRO 0-2, at ZeRO-3 those that
    are gathered now. Collective; reads the weights once, and the host waits for the result.
    """
    if world.size == 1:
        return ""
    names, sums = [], []
    for name, parameter in engine.module.named_parameters():
        if parameter.numel() == getattr(parameter, "ds_numel", parameter.numel()):
            names.append(name)
            sums.append(_sum_of_bits(parameter.data))
    copies = world.gather(torch.stack(sums).tolist() if sums else [])
    found = []
    for name, *values in zip(names, *copies, strict=True):
        [(most, held), *others] = Counter(values).most_common()
        if others:
            trusted = most if 2 * held > world.size else None
            found.append((name, [rank for rank, each in enumerate(values) if each != trusted]))
    if not found:
        return ""
    ranks = sorted({rank for _, odd in found for rank in odd})
    listed = ", ".join(name for name, _ in found[:8])
    more = f" and {len(found) - 8} more" if len(found) > 8 else ""
    who = " and ".join(str(rank) for rank in ranks)
    return f"ranks no longer hold the same weights: {listed}{more} differ on rank {who}"


def _sum_of_bits(tensor: torch.Tensor) -> torch.Tensor:
    """int64: the elements' bits as integers, added up (modulo 2^64). A flipped bit changes it."""
    integers = tensor.contiguous().view(_INTEGERS[tensor.element_size()])
    return integers.sum(dtype=torch.int64)
