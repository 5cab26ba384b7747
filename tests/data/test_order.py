"""The order of samples is a pure function of seed, epoch, lengths and global batch size."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigft.data.order import Order, cut, shard_for_evaluation

MAX_LENGTH = 40
WORLDS = (1, 2, 4, 7)

lengths_of_samples = st.lists(st.integers(1, MAX_LENGTH), min_size=1, max_size=200)
bounds = st.one_of(
    st.integers(1, 50).map(lambda size: {"global_batch_size": size}),
    st.integers(MAX_LENGTH, 400).map(lambda tokens: {"global_batch_tokens": tokens}),
)
orders = st.builds(
    lambda lengths, seed, bound: Order(np.array(lengths), seed, **bound),
    lengths_of_samples,
    st.integers(0, 2**40),
    bounds,
)
quick = settings(max_examples=60, deadline=None)


def padded(ids: np.ndarray, lengths: np.ndarray) -> int:
    return len(ids) * int(lengths[ids].max()) if len(ids) else 0


def skewed_lengths(num_samples: int) -> np.ndarray:
    random = np.random.default_rng(0)
    return np.clip(random.lognormal(3, 1, num_samples).astype(np.int64), 1, 512)


def flat(parts: Iterable[Iterable[np.ndarray]]) -> Counter[int]:
    return Counter(int(i) for rank in parts for part in rank for i in part)


# --- Order ---


@quick
@given(orders, st.integers(0, 5))
def test_every_sample_comes_exactly_once_per_epoch(order: Order, epoch: int) -> None:
    ids = np.concatenate(order.epoch_batches(epoch))
    assert sorted(ids) == list(range(len(order.lengths)))


@quick
@given(orders)
def test_batches_keep_their_bound_and_at_most_one_of_a_count_is_partial(order: Order) -> None:
    batches = order.epoch_batches(0)
    if order.global_batch_size is None:
        assert max(padded(b, order.lengths) for b in batches) <= order.global_batch_tokens
    else:
        sizes = [len(b) for b in batches]
        rest = len(order.lengths) % order.global_batch_size
        assert [s for s in sizes if s != order.global_batch_size] == ([rest] if rest else [])


@quick
@given(orders)
def test_any_step_is_computed_directly_as_iteration_reaches_it(order: Order) -> None:
    walked = [batch for epoch in range(3) for batch in order.epoch_batches(epoch)]
    resumed = Order(order.lengths, order.seed, order.global_batch_size, order.global_batch_tokens)
    for step in reversed(range(len(walked))):
        np.testing.assert_array_equal(resumed.global_batch(step), walked[step])
    assert resumed.position(len(walked)) == (3, 0)


@pytest.mark.parametrize("bound", [{"global_batch_size": 8}, {"global_batch_tokens": 600}])
def test_epochs_and_seeds_differ_in_the_composition_of_batches(bound: dict[str, int]) -> None:
    lengths = skewed_lengths(100)

    def composition(seed: int, epoch: int) -> set[frozenset[int]]:
        return {frozenset(b.tolist()) for b in Order(lengths, seed, **bound).epoch_batches(epoch)}

    first = composition(0, 0)
    for other in (composition(0, 1), composition(1, 0)):
        assert len(first & other) < len(first) / 2


def test_the_order_is_the_same_on_every_machine_and_numpy() -> None:
    order = Order(np.array([5, 1, 4, 2, 3, 9, 8]), seed=3, global_batch_size=2)
    assert [b.tolist() for b in order.epoch_batches(1)] == [[4], [0, 3], [2, 1], [5, 6]]


def test_the_partial_batch_is_no_home_of_long_samples() -> None:
    lengths = np.arange(1, 29)
    rests = [
        int(batch[0])
        for epoch in range(400)
        for batch in Order(lengths, 0, global_batch_size=3).epoch_batches(epoch)
        if len(batch) == 1
    ]
    assert set(rests) == set(range(28))


@pytest.mark.parametrize("bound", [{"global_batch_size": 32}, {"global_batch_tokens": 2048}])
def test_buckets_waste_less_than_a_fifth_of_the_padding_of_random_batches(
    bound: dict[str, int],
) -> None:
    lengths = skewed_lengths(20_000)
    real = int(lengths.sum())
    batches = Order(lengths, 0, **bound).epoch_batches(0)
    bucketed = sum(padded(b, lengths) for b in batches) - real
    mixed = np.array_split(np.random.default_rng(1).permutation(len(lengths)), len(batches))
    random = sum(padded(b, lengths) for b in mixed) - real
    print(f"padding per real token: buckets {bucketed / real:.3f}, random {random / real:.3f}")
    assert bucketed < random / 5


def test_total_steps_count_parts_of_epochs_and_yield_to_max_steps() -> None:
    order = Order(np.ones(240, dtype=np.int64), 0, global_batch_size=8)
    assert order.total_steps(2.0) == 60
    assert order.total_steps(2.1) == 63
    assert order.total_steps(0.01) == 1
    assert order.total_steps(3.0, max_steps=-1) == 90
    assert order.total_steps(3.0, max_steps=7) == 7


def test_total_steps_by_tokens_are_those_of_the_epochs() -> None:
    order = Order(skewed_lengths(500), 0, global_batch_tokens=1024)
    per_epoch = [len(order.epoch_batches(epoch)) for epoch in range(3)]
    assert order.total_steps(2.5) == sum(per_epoch[:2]) + math.ceil(per_epoch[2] / 2)


def test_batches_cannot_be_changed_by_their_reader() -> None:
    order = Order(np.arange(1, 9), 0, global_batch_size=4)
    with pytest.raises(ValueError, match="read-only"):
        order.global_batch(0)[0] = 7


def test_an_order_refuses_what_it_cannot_keep() -> None:
    with pytest.raises(ValueError, match="sample 1 has 9 tokens: a batch holds 8"):
        Order(np.array([3, 9]), 0, global_batch_tokens=8)
    for neither_or_both in ({}, {"global_batch_size": 2, "global_batch_tokens": 99}):
        with pytest.raises(ValueError, match="state one of"):
            Order(np.array([3, 9]), 0, **neither_or_both)
    with pytest.raises(ValueError, match="at least one sample"):
        Order(np.array([]), 0, global_batch_size=2)


# --- cut ---


def fewest_groups(lengths: list[int], max_samples: int, max_tokens: int) -> int:
    """By trying every grouping of the sorted lengths."""
    lengths = sorted(lengths)

    @cache
    def groups_from(start: int) -> int:
        if start == len(lengths):
            return 0
        stops = range(start + 1, min(start + max_samples, len(lengths)) + 1)
        fitting = [s for s in stops if (s - start) * lengths[s - 1] <= max_tokens]
        return 1 + min(groups_from(stop) for stop in fitting)

    return groups_from(0)


cut_bounds = st.fixed_dictionaries(
    {
        "max_samples": st.none() | st.integers(1, 20),
        "max_tokens": st.none() | st.integers(MAX_LENGTH, 300),
    }
)


@quick
@given(lengths_of_samples, cut_bounds, st.data())
def test_a_cut_keeps_every_id_and_bound_in_the_fewest_micro_steps(
    lengths: list[int], bound: dict[str, int | None], data: st.DataObject
) -> None:
    array = np.array(lengths)
    chosen = data.draw(st.sets(st.integers(0, len(lengths) - 1), min_size=1))
    ids = np.array(sorted(chosen))
    max_samples, max_tokens = bound["max_samples"] or len(ids), bound["max_tokens"] or 10**9
    fewest = fewest_groups(array[ids].tolist(), max_samples, max_tokens)
    for world_size in WORLDS:
        parts = cut(ids, array, world_size, **bound)
        assert flat(parts) == Counter(ids.tolist())
        assert [len(rank) for rank in parts] == [math.ceil(fewest / world_size)] * world_size
        for part in (part for rank in parts for part in rank):
            assert len(part) <= max_samples
            assert padded(part, array) <= max_tokens
        empty = [step for rank in parts for step, part in enumerate(rank) if not len(part)]
        assert set(empty) <= {len(parts[0]) - 1}


@quick
@given(orders)
def test_the_world_sees_the_same_global_batches_whatever_its_size(order: Order) -> None:
    for step in range(order.steps_in_epoch(0)):
        ids = order.global_batch(step)
        for world_size in WORLDS:
            assert flat(cut(ids, order.lengths, world_size, max_samples=3)) == Counter(ids.tolist())


def sizes(parts: list[list[np.ndarray]]) -> list[list[int]]:
    return [[len(part) for part in rank] for rank in parts]


def test_eight_samples_are_cut_as_one_would_by_hand() -> None:
    ids, lengths = np.arange(8), np.arange(10, 18)
    assert sizes(cut(ids, lengths, 1, max_samples=8)) == [[8]]
    assert sizes(cut(ids, lengths, 2, max_samples=2)) == [[2, 2], [2, 2]]
    assert sizes(cut(ids, lengths, 4, max_samples=3)) == [[2], [2], [2], [2]]
    assert sizes(cut(ids, lengths, 3, max_samples=8)) == [[3], [3], [2]]
    assert sizes(cut(ids[:2], lengths, 3, max_samples=8)) == [[1], [1], [0]]
    assert sizes(cut(ids, lengths, 4, max_tokens=1000)) == [[2], [2], [2], [2]]


def test_ranks_hold_like_lengths_at_a_micro_step_and_the_longest_come_first() -> None:
    lengths = skewed_lengths(64)
    parts = cut(np.arange(64), lengths, 4, max_samples=4)
    for step in range(3):
        now = np.concatenate([lengths[rank[step]] for rank in parts])
        later = np.concatenate([lengths[rank[step + 1]] for rank in parts])
        assert now.min() >= later.max()


def test_micro_batches_by_tokens_are_alike_in_padded_tokens() -> None:
    lengths = np.full(20, 10)
    parts = cut(np.arange(20), lengths, 4, max_tokens=190)
    assert sizes(parts) == [[5], [5], [5], [5]]


def test_a_cut_refuses_a_sample_above_the_bound() -> None:
    with pytest.raises(ValueError, match="sample 4 has 50 tokens: a batch holds 49"):
        cut(np.array([1, 4]), np.array([1, 2, 3, 4, 50]), 2, max_tokens=49)


# --- evaluation ---


@quick
@given(
    st.lists(st.lists(st.integers(1, MAX_LENGTH), min_size=1, max_size=5), max_size=60),
    st.sampled_from(WORLDS),
    st.integers(1, 9),
)
def test_evaluation_shards_by_record_with_windows_in_order(
    windows: list[list[int]], world_size: int, max_samples: int
) -> None:
    record_of_row = np.array([r for r, w in enumerate(windows) for _ in w], dtype=np.int64)
    lengths = np.array([length for w in windows for length in w], dtype=np.int64)
    shards = shard_for_evaluation(record_of_row, lengths, world_size, max_samples)
    assert flat(shards) == Counter(range(len(lengths)))
    assert len({len(rank) for rank in shards}) == 1
    seen: set[int] = set()
    for rank in shards:
        assert all(len(batch) <= max_samples for batch in rank)
        rows = [int(row) for batch in rank for row in batch]
        records = [int(record_of_row[row]) for row in rows]
        runs = [r for i, r in enumerate(records) if i == 0 or records[i - 1] != r]
        assert len(runs) == len(set(runs)), "a record's windows are not contiguous"
        assert not seen & set(runs), "a record on two ranks"
        seen |= set(runs)
        assert all(a < b for a, b in pairwise(rows) if record_of_row[a] == record_of_row[b])


def test_evaluation_is_balanced_and_pads_little() -> None:
    lengths = skewed_lengths(2_000)
    shards = shard_for_evaluation(np.arange(2_000), lengths, 4, 16)
    tokens = [sum(int(lengths[b].sum()) for b in rank) for rank in shards]
    assert max(tokens) < 1.05 * min(tokens)
    assert len(shards[0]) == math.ceil(2_000 / 4 / 16)
    in_order = np.array_split(np.arange(2_000), 4 * len(shards[0]))

    def waste(batches: Iterable[np.ndarray]) -> float:
        return sum(padded(b, lengths) for b in batches) / lengths.sum() - 1

    sorted_waste, plain_waste = waste(b for rank in shards for b in rank), waste(in_order)
    print(f"padding per real token: sorted {sorted_waste:.3f}, in file order {plain_waste:.3f}")
    assert sorted_waste < plain_waste / 5
