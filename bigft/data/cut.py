"""Which rows of a global batch, and which of an evaluation, a rank takes: pure functions."""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left

import numpy as np
from numpy.typing import NDArray

from bigft.data.packing import Ids


def cut(
    ids: Ids,
    lengths: Ids,
    world_size: int,
    *,
    max_samples: int | None = None,
    max_tokens: int | None = None,
) -> list[list[Ids]]:
    """The rows of one global batch as [rank][micro-step] -> ids, each once, longest first.

    Every rank has the same number of micro-steps, the fewest that the bounds allow. At a micro-step
    the ranks hold rows of like lengths; in the last one a rank may hold an EMPTY array.

    Args:
        ids: the numbers of the rows, at least one.
        lengths: int64 tokens of the rows, indexed by id.
        max_samples: rows of a micro-batch; None: no bound.
        max_tokens: rows x longest of a micro-batch; None: no bound, rows are spread evenly.

    Raises ValueError for a row longer than max_tokens.
    """
    ids = ids[np.lexsort((ids, -lengths[ids]))]
    max_samples = max_samples or len(ids)
    if max_tokens is None:
        num_slots = math.ceil(len(ids) / (max_samples * world_size)) * world_size
        groups = np.array_split(ids, num_slots)
    else:
        check_fits(f"row {ids[0]}", lengths[ids[0]], max_tokens, "a batch")
        groups = _cut_by_tokens(ids, lengths, world_size, max_samples, max_tokens)
    return [groups[rank::world_size] for rank in range(world_size)]


def shard_for_evaluation(
    record_of_row: NDArray[np.integer],
    lengths: NDArray[np.integer],
    world_size: int,
    max_samples: int,
) -> list[list[Ids]]:
    """All rows as [rank][batch] -> row numbers, each row once, longest records first.

    The rows (windows) of a record are on one rank, in their order, one after the other, if need be
    over several batches. Every rank has the same number of batches, the last ones may be EMPTY.
    Records are dealt out by falling length to the rank with the fewest rows, then fewest tokens: so
    batch i has like lengths on every rank, and ranks agree in rows as in tokens.
    """
    by_record = np.argsort(record_of_row, kind="stable")
    firsts = np.flatnonzero(np.diff(record_of_row[by_record], prepend=-1))
    if not len(firsts):
        return [[] for _ in range(world_size)]
    longest = np.maximum.reduceat(lengths[by_record], firsts)
    tokens = np.add.reduceat(lengths[by_record], firsts)
    windows = np.split(by_record, firsts[1:])
    rows_of: list[list[Ids]] = [[] for _ in range(world_size)]
    loads = [(0, 0, rank) for rank in range(world_size)]  # a heap of (rows, tokens, rank)
    for record in np.lexsort((-tokens, -longest)):
        num_rows, num_tokens, rank = loads[0]
        rows_of[rank].append(windows[record])
        load = (num_rows + len(windows[record]), num_tokens + int(tokens[record]), rank)
        heapq.heapreplace(loads, load)
    num_batches = math.ceil(max(loads)[0] / max_samples)
    shards = []
    for parts in rows_of:
        rows = np.concatenate([by_record[:0], *parts])
        starts = range(0, num_batches * max_samples, max_samples)
        shards.append([rows[start : start + max_samples] for start in starts])
    return shards


def greedy_starts(longest_first: Ids, max_samples: int, max_tokens: int) -> list[int]:
    """Where the fewest groups within the bounds begin; no other grouping needs fewer."""
    lengths = longest_first.tolist()
    starts, start = [], 0
    while start < len(lengths):
        starts.append(start)
        start += min(max_samples, max_tokens // lengths[start])
    return starts


def _cut_by_tokens(
    ids: Ids, lengths: Ids, world_size: int, max_samples: int, max_tokens: int
) -> list[Ids]:
    longest_first = lengths[ids]

    def num_groups(bound: int) -> int:
        return len(greedy_starts(longest_first, max_samples, bound))

    num_slots = math.ceil(num_groups(max_tokens) / world_size) * world_size
    # The tightest bound that needs no further micro-step makes the groups alike in padded tokens.
    bounds = range(int(longest_first[0]), max_tokens + 1)
    tightest = bounds[bisect_left(bounds, True, key=lambda bound: num_groups(bound) <= num_slots)]
    groups = np.split(ids, greedy_starts(longest_first, max_samples, tightest)[1:])
    while len(groups) < min(num_slots, len(ids)):
        divisible = [index for index, group in enumerate(groups) if len(group) > 1]
        widest = max(divisible, key=lambda index: len(groups[index]) * lengths[groups[index][0]])
        groups[widest : widest + 1] = np.array_split(groups[widest], 2)
    return groups + [ids[:0]] * (num_slots - len(groups))


def check_fits(what: str, num_tokens: int | np.int64, most: int, holder: str) -> None:
    """Raises ValueError, naming what does not fit into what."""
    if num_tokens > most:
        raise ValueError(f"{what} has {num_tokens} tokens: {holder} holds {most}")
