"""Which samples form global batch k, and which of them share a row: pure functions, no state.

The order depends on (seed, epoch, lengths, size of a global batch, shares of the sources) and never
on the world, so a run resumes at any step, with any number of ranks, from the number of the step
alone.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bigft.data.cut import check_fits, greedy_starts
from bigft.data.packing import PACKERS, Ids, Strategy

WINDOW_BATCHES = 64  # a window is sorted by length, or packed: wider pads less and mixes less
MIN_WINDOWS = 4  # a window over all of a small set would form the same batches in every epoch


@dataclass(frozen=True, eq=False)
class Order:
    """The global batches of a run, epoch after epoch, as rows of samples.

    A row is what the model sees in one line of a batch: one sample or, with `row_capacity`, several
    that are packed. An epoch has as many samples as there are: each of them once or, with `shares`,
    of each source its share. A sample of a source comes as often as any other of it: over any
    number of epochs the counts differ by one at most.

    lengths: int64, real tokens of each sample, all >= 1.
    global_batch_size: samples of every batch, but for one per epoch that takes the rest: a random
        draw, unsorted by length, at a random place in the epoch, so no sample is favoured by it.
        Packing leaves a batch its samples: the rows are packed within it.
    global_batch_tokens: state it in the place of the size. The bound on samples x longest of a
        batch; of packed ones on rows x capacity, where the last of an epoch takes the rest.
    row_capacity: tokens of a packed row at most; None: no packing.
    strategy: which samples share a row (bigft/_host.pyi).
    source_of_sample: int64, the number of each sample's source, and shares: of the sources in an
        epoch's samples, > 0, in any unit; both or neither.

    Raises ValueError for no samples, for both or neither bound, for a sample above the bound or the
    capacity, for a bound below the capacity, and for a source without samples.
    """

    lengths: Ids
    seed: int
    global_batch_size: int | None = None
    global_batch_tokens: int | None = None
    row_capacity: int | None = None
    strategy: Strategy = "first_fit_decreasing"
    source_of_sample: Ids | None = None
    shares: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        lengths = np.array(self.lengths, dtype=np.int64)
        lengths.setflags(write=False)
        object.__setattr__(self, "lengths", lengths)
        if not len(lengths):
            raise ValueError("an order needs at least one sample")
        if (self.global_batch_size is None) == (self.global_batch_tokens is None):
            raise ValueError("state one of global_batch_size and global_batch_tokens")
        longest = int(lengths.argmax())
        if self.row_capacity is not None:
            check_fits(f"sample {longest}", lengths[longest], self.row_capacity, "a row")
        if self.global_batch_tokens is not None:
            most = self.global_batch_tokens
            check_fits(f"sample {longest}", lengths[longest], most, "a batch")
            check_fits("a full row", self.row_capacity or 0, most, "a batch")

    def epoch_batches(self, epoch: int) -> list[Ids]:
        """All batches of the epoch in order, as read-only arrays of sample ids."""
        arranged = _arranged(self, epoch)
        return [arranged.samples(step) for step in range(len(arranged.steps))]

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
        """The sample ids of global step 0, 1, 2, ..., row after row; read-only."""
        epoch, index = self.position(step)
        return _arranged(self, epoch).samples(index)

    def rows(self, step: int) -> list[Ids]:
        """The sample ids of every row of global step 0, 1, 2, ...; read-only."""
        epoch, index = self.position(step)
        return _arranged(self, epoch).rows(index)

    def occurrences(self, step: int) -> list[Ids]:
        """Beside each id of `rows(step)`, how often the epoch has it before: 0 but with `shares`.

        Counted through the epoch's rows in one fixed order, which is not that of its steps.
        """
        epoch, index = self.position(step)
        rows = self.rows(step)
        if self.shares is None:
            return [np.zeros(len(row), np.int64) for row in rows]
        arranged = _arranged(self, epoch)
        counts = _occurrences(self, epoch)
        first, _ = arranged.row_starts[arranged.steps[index]]
        ends = np.cumsum([len(row) for row in rows])
        return np.split(counts[first : first + ends[-1]], ends[:-1])

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


# -- an epoch -------------------------------------------------------------------------------------


class _Epoch(NamedTuple):
    """ids: row after row.  row_starts: where in ids each row begins, and the end.

    steps: per batch, in the order of the epoch, its first row and the one after its last.
    """

    ids: Ids
    row_starts: Ids
    steps: Ids

    def samples(self, step: int) -> Ids:
        first, stop = self.row_starts[self.steps[step]]
        return self.ids[first:stop]

    def rows(self, step: int) -> list[Ids]:
        first, stop = self.steps[step]
        starts = self.row_starts[first:stop]
        return np.split(self.samples(step), starts[1:] - starts[0])


@lru_cache(maxsize=2)
def _arranged(order: Order, epoch: int) -> _Epoch:
    random = np.random.Philox(np.random.SeedSequence([order.seed, epoch]))
    ids = _drawn(order, epoch)
    ids = ids[_permutation(random, len(ids))]
    if order.row_capacity is not None and order.global_batch_tokens is not None:
        arranged = _batches_of_rows(
            order, ids, order.row_capacity, order.global_batch_tokens, random
        )
    else:
        arranged = _batches_of_samples(order, ids, random)
    for array in arranged:
        array.setflags(write=False)
    return arranged


@lru_cache(maxsize=2)
def _occurrences(order: Order, epoch: int) -> Ids:
    """For each of the epoch's ids, how often it stands before in `_Epoch.ids`."""
    ids = _arranged(order, epoch).ids
    by_id = np.argsort(ids, kind="stable")
    starts = np.flatnonzero(np.diff(ids[by_id], prepend=-1))
    sizes = np.diff(np.append(starts, len(ids)))
    counts = np.empty_like(ids)
    counts[by_id] = np.arange(len(ids)) - np.repeat(starts, sizes)
    counts.setflags(write=False)
    return counts


@lru_cache(maxsize=1024)
def _num_batches(order: Order, epoch: int) -> int:
    return len(_arranged(order, epoch).steps)


def _batches_of_samples(order: Order, ids: Ids, random: np.random.Philox) -> _Epoch:
    """Batches of like lengths, in a random order; with packing each is packed for itself."""
    lengths, size, num_samples = order.lengths, order.global_batch_size, len(ids)
    window = _window(size or (order.global_batch_tokens or 0) / lengths[ids].mean(), num_samples)
    num_sorted = num_samples - num_samples % size if size else num_samples
    starts: list[int] = []  # of the batches by tokens
    for first in range(0, num_sorted, window):
        now = ids[first : min(first + window, num_sorted)]
        now[:] = now[np.argsort(-lengths[now], kind="stable")]
        if order.global_batch_tokens is not None:
            in_window = greedy_starts(lengths[now], num_samples, order.global_batch_tokens)
            starts += [first + start for start in in_window]
    bounds = np.append(np.arange(0, num_samples, size) if size else np.array(starts), num_samples)
    row_starts = np.arange(num_samples + 1)
    if order.row_capacity is not None and size:
        rows = PACKERS[order.strategy](lengths[ids], order.row_capacity, size)
        ids, row_starts = _by_row(ids, rows)
        bounds = np.searchsorted(row_starts, bounds)  # a batch begins with a row of its own
    steps = np.stack([bounds[:-1], bounds[1:]], axis=1)
    return _Epoch(ids, row_starts, steps[_permutation(random, len(steps))])


def _batches_of_rows(
    order: Order, ids: Ids, capacity: int, global_batch_tokens: int, random: np.random.Philox
) -> _Epoch:
    """Batches of packed rows, drawn at random from all of the epoch."""
    rows_of_batch = global_batch_tokens // capacity
    window = _window(rows_of_batch * capacity / order.lengths[ids].mean(), len(ids))
    rows = PACKERS[order.strategy](order.lengths[ids], capacity, window)
    num_rows = int(rows.max()) + 1
    ids, row_starts = _by_row(ids, _permutation(random, num_rows)[rows])
    bounds = np.append(np.arange(0, num_rows, rows_of_batch), num_rows)
    return _Epoch(ids, row_starts, np.stack([bounds[:-1], bounds[1:]], axis=1))


def _window(samples_of_batch: float, num_samples: int) -> int:
    typical = max(1, int(samples_of_batch))
    return typical * min(WINDOW_BATCHES, max(1, num_samples // typical // MIN_WINDOWS))


def _by_row(ids: Ids, rows: Ids) -> tuple[Ids, Ids]:
    """(the ids row after row, where each row begins, and the end), from the row of each sample."""
    row_starts = np.concatenate([[0], np.cumsum(np.bincount(rows))])
    return ids[_argsort(rows.astype(np.uint64))], row_starts


# -- the samples of an epoch ----------------------------------------------------------------------


def _drawn(order: Order, epoch: int) -> Ids:
    """The ids of the epoch's samples, not shuffled yet."""
    num_samples = len(order.lengths)
    if order.source_of_sample is None or order.shares is None:
        return np.arange(num_samples)
    parts = []
    for source, count in enumerate(_counts(order.shares, num_samples)):
        members = np.flatnonzero(order.source_of_sample == source)
        if not len(members):
            raise ValueError(f"source {source} has a share of {order.shares[source]}, no samples")
        parts.append(_of_stream(members, epoch * count, count, order.seed, source))
    return np.concatenate(parts)


def _counts(shares: tuple[float, ...], num_samples: int) -> list[int]:
    """How many samples each source gives, together num_samples: the largest remainders round up."""
    quotas = [num_samples * share / sum(shares) for share in shares]
    counts = [int(quota) for quota in quotas]
    by_remainder = sorted(range(len(shares)), key=lambda source: counts[source] - quotas[source])
    for source in by_remainder[: num_samples - sum(counts)]:
        counts[source] += 1
    return counts


def _of_stream(members: Ids, first: int, count: int, seed: int, source: int) -> Ids:
    """Positions first to first + count of an endless stream of permutations of `members`.

    Not in the order of the stream. Of a permutation that lies in it as a whole the order does not
    matter, so no more than two are made, however small a source is.
    """

    def permuted(turn: int) -> Ids:
        seeds = np.random.SeedSequence(seed, spawn_key=(source, turn))
        return members[_permutation(np.random.Philox(seeds), len(members))]

    turn, begin = divmod(first, len(members))
    last_turn, end = divmod(first + count, len(members))
    if turn == last_turn:
        return permuted(turn)[begin:end]
    whole = np.tile(members, last_turn - turn - 1)
    return np.concatenate([permuted(turn)[begin:], whole, permuted(last_turn)[:end]])


def _permutation(random: np.random.Philox, size: int) -> Ids:
    # Raw bits, sorted: numpy keeps those the same in every version, Generator.permutation not.
    return _argsort(random.random_raw(size) >> _bits(size))


def _argsort(numbers: NDArray[np.uint64]) -> Ids:
    """As np.argsort(numbers, kind="stable"), of numbers that leave room for a position below them:
    several times as fast, since numpy sorts numbers faster than places."""
    bits = _bits(len(numbers))
    keys = numbers << bits | np.arange(len(numbers), dtype=np.uint64)
    keys.sort()
    return (keys & ((np.uint64(1) << bits) - np.uint64(1))).astype(np.int64)


def _bits(size: int) -> np.uint64:
    return np.uint64(max(size - 1, 0).bit_length())
