"""Which samples form global batch k, and which of them a rank takes: pure functions, no state.

The order depends on (seed, epoch, lengths, size of a global batch) and never on the world, so a run
resumes at any step, with any number of ranks, from the number of the step alone.
"""

from __future__ import annotations

import heapq
import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]

WINDOW_BATCHES = 64  # a window is sorted by length: wider pads less and mixes less
MIN_WINDOWS = 4  # a window over all of a small set would form the same batches in every epoch


@dataclass(frozen=True, eq=False)
class Order:
    """The global batches of a run, epoch after epoch; each sample once per epoch.

    lengths: int64, real tokens of each sample, all >= 1.
    global_batch_size: samples of every batch, but for one per epoch that takes the rest: a random
        draw, unsorted by length, at a random place in the epoch, so no sample is favoured by it.
    global_batch_tokens: the bound on samples x longest of a batch; state one of the two.

    Raises ValueError for no samples, for both or neither bound, and for a sample above the bound.
    """

    lengths: Ids
    seed: int
    global_batch_size: int | None = None
    global_batch_tokens: int | None = None

    def __post_init__(self) -> None:
        lengths = np.array(self.lengths, dtype=np.int64)
        lengths.setflags(write=False)
        object.__setattr__(self, "lengths", lengths)
        if not len(lengths):
            raise ValueError("an order needs at least one sample")
        if (self.global_batch_size is None) == (self.global_batch_tokens is None):
            raise ValueError("state one of global_batch_size and global_batch_tokens")
        if self.global_batch_tokens is not None:
            longest = int(lengths.argmax())
            _check_fits(longest, int(lengths[longest]), self.global_batch_tokens)

    def epoch_batches(self, epoch: int) -> list[Ids]:
        """All batches of the epoch in order, as read-only arrays of sample ids."""
        ids, spans = _arranged(self, epoch)
        return [ids[start:stop] for start, stop in spans]

    def steps_in_epoch(self, epoch: int) -> int:
        """The number of global batches; by tokens it varies a little from epoch to epoch."""
        if self.global_batch_size is not None:
            return math.ceil(len(self.lengths) / self.global_batch_size)
        return _num_batches(self, epoch)

    def position(self, step: int) -> tuple[int, int]:
        """(epoch, index of the batch in that epoch) of global step 0, 1, 2, ..."""
        if self.global_batch_size is not None:
            return divmod(step, self.steps_in_epoch(0))
        epoch = 0
        while step >= (num_steps := self.steps_in_epoch(epoch)):
            step -= num_steps
            epoch += 1
        return epoch, step

    def global_batch(self, step: int) -> Ids:
        """The sample ids of global step 0, 1, 2, ...; read-only."""
        epoch, index = self.position(step)
        ids, spans = _arranged(self, epoch)
        start, stop = spans[index]
        return ids[start:stop]

    def total_steps(self, num_train_epochs: float, max_steps: int | None = None) -> int:
        """The steps of a run; a positive max_steps overrides the epochs, as in transformers."""
        if max_steps is not None and max_steps > 0:
            return max_steps
        part, whole = math.modf(num_train_epochs)
        steps = sum(self.steps_in_epoch(epoch) for epoch in range(int(whole)))
        if part:
            # Rounded first: 0.1 of 30 steps of epoch 2.1 is 3.0000000000000027 in floating point.
            steps += math.ceil(round(part * self.steps_in_epoch(int(whole)), 6))
        return steps


def cut(
    ids: Ids,
    lengths: Ids,
    world_size: int,
    *,
    max_samples: int | None = None,
    max_tokens: int | None = None,
) -> list[list[Ids]]:
    """One global batch as [rank][micro-step] -> sample ids, each id once, longest first.

    Every rank has the same number of micro-steps, the fewest that the bounds allow. At a micro-step
    the ranks hold samples of like lengths; in the last one a rank may hold an EMPTY array.

    Args:
        ids: the sample ids of the batch, at least one.
        lengths: int64 tokens of ALL samples, indexed by id.
        max_samples: samples of a micro-batch; None: no bound.
        max_tokens: samples x longest of a micro-batch; None: no bound, samples are spread evenly.

    Raises ValueError for a sample longer than max_tokens.
    """
    ids = ids[np.lexsort((ids, -lengths[ids]))]
    max_samples = max_samples or len(ids)
    if max_tokens is None:
        num_slots = math.ceil(len(ids) / (max_samples * world_size)) * world_size
        groups = np.array_split(ids, num_slots)
    else:
        _check_fits(int(ids[0]), int(lengths[ids[0]]), max_tokens)
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


@lru_cache(maxsize=2)
def _arranged(order: Order, epoch: int) -> tuple[Ids, Ids]:
    """(sample ids, one row (start, stop) within them per batch, in the order of the epoch)."""
    lengths, size, num_samples = order.lengths, order.global_batch_size, len(order.lengths)
    random = np.random.Philox(np.random.SeedSequence([order.seed, epoch]))
    ids = _permutation(random, num_samples)
    typical_size = size or max(1, int((order.global_batch_tokens or 0) / lengths.mean()))
    num_window_batches = num_samples // typical_size // MIN_WINDOWS
    window_size = typical_size * min(WINDOW_BATCHES, max(1, num_window_batches))
    num_sorted = num_samples - num_samples % size if size else num_samples
    starts: list[int] = []
    for first in range(0, num_sorted, window_size):
        window = ids[first : min(first + window_size, num_sorted)]
        window[:] = window[np.argsort(-lengths[window], kind="stable")]
        if order.global_batch_tokens is not None:
            in_window = _greedy_starts(lengths[window], num_samples, order.global_batch_tokens)
            starts += [first + start for start in in_window]
    if size:
        starts = list(range(0, num_samples, size))
    spans = np.stack([starts, [*starts[1:], num_samples]], axis=1)
    ids.setflags(write=False)
    return ids, spans[_permutation(random, len(spans))]


@lru_cache(maxsize=1024)
def _num_batches(order: Order, epoch: int) -> int:
    return len(_arranged(order, epoch)[1])


def _permutation(random: np.random.Philox, size: int) -> Ids:
    # Raw bits, sorted: numpy keeps those the same in every version, Generator.permutation not.
    return np.argsort(random.random_raw(size), kind="stable")


def _greedy_starts(longest_first: Ids, max_samples: int, max_tokens: int) -> list[int]:
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
        return len(_greedy_starts(longest_first, max_samples, bound))

    num_slots = math.ceil(num_groups(max_tokens) / world_size) * world_size
    # The tightest bound that needs no further micro-step makes the groups alike in padded tokens.
    bounds = range(int(longest_first[0]), max_tokens + 1)
    tightest = bounds[bisect_left(bounds, True, key=lambda bound: num_groups(bound) <= num_slots)]
    groups = np.split(ids, _greedy_starts(longest_first, max_samples, tightest)[1:])
    while len(groups) < min(num_slots, len(ids)):
        divisible = [index for index, group in enumerate(groups) if len(group) > 1]
        widest = max(divisible, key=lambda index: len(groups[index]) * lengths[groups[index][0]])
        groups[widest : widest + 1] = np.array_split(groups[widest], 2)
    return groups + [ids[:0]] * (num_slots - len(groups))


def _check_fits(sample: int, length: int, max_tokens: int) -> None:
    if length > max_tokens:
        raise ValueError(f"sample {sample} has {length} tokens: a batch holds {max_tokens}")
