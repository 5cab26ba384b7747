"""The order of samples is a pure function of seed, epoch, lengths and global batch size."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigft.data.order import MIN_WINDOWS, Order
from bigft.data.packing import PACKERS

MAX_LENGTH = 40

lengths_of_samples = st.lists(st.integers(1, MAX_LENGTH), min_size=1, max_size=200)
bounds = st.one_of(
    st.integers(1, 50).map(lambda size: {"global_batch_size": size}),
    st.integers(MAX_LENGTH, 400).map(lambda tokens: {"global_batch_tokens": tokens}),
)
packed = st.one_of(
    st.just({}),
    st.fixed_dictionaries(
        {
            "row_capacity": st.integers(MAX_LENGTH, 120),
            "strategy": st.sampled_from(["first_fit_decreasing", "length_ordered"]),
        }
    ),
)
seeds = st.integers(0, 2**40)


def made(lengths: list[int], seed: int, bound: dict[str, int], packing: dict[str, Any]) -> Order:
    if "global_batch_tokens" in bound:
        least = packing.get("row_capacity", 0)
        bound = {"global_batch_tokens": max(bound["global_batch_tokens"], least)}
    return Order(np.array(lengths), seed, **bound, **packing)


orders = st.builds(made, lengths_of_samples, seeds, bounds, packed)
unpacked_orders = st.builds(made, lengths_of_samples, seeds, bounds, st.just({}))
packed_orders = orders.filter(lambda order: order.row_capacity is not None)
quick = settings(max_examples=60, deadline=None)


def padded(ids: np.ndarray, lengths: np.ndarray) -> int:
    return len(ids) * int(lengths[ids].max()) if len(ids) else 0


def skewed_lengths(num_samples: int) -> np.ndarray:
    random = np.random.default_rng(0)
    return np.clip(random.lognormal(3, 1, num_samples).astype(np.int64), 1, 512)


# --- Order ---


@quick
@given(orders, st.integers(0, 5))
def test_every_sample_comes_exactly_once_per_epoch(order: Order, epoch: int) -> None:
    ids = np.concatenate(order.epoch_batches(epoch))
    assert sorted(ids) == list(range(len(order.lengths)))


@quick
@given(unpacked_orders)
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
    resumed = replace(order)
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
    with pytest.raises(ValueError, match="sample 1 has 9 tokens: a row holds 8"):
        Order(np.array([3, 9]), 0, global_batch_size=2, row_capacity=8)
    with pytest.raises(ValueError, match="a full row has 16 tokens: a batch holds 12"):
        Order(np.array([3, 9]), 0, global_batch_tokens=12, row_capacity=16)
    for neither_or_both in ({}, {"global_batch_size": 2, "global_batch_tokens": 99}):
        with pytest.raises(ValueError, match="state one of"):
            Order(np.array([3, 9]), 0, **neither_or_both)
    with pytest.raises(ValueError, match="at least one sample"):
        Order(np.array([]), 0, global_batch_size=2)


# --- rows ---


@quick
@given(orders, st.integers(0, 2))
def test_the_rows_of_a_step_are_its_samples_one_after_the_other(order: Order, epoch: int) -> None:
    first = sum(order.steps_in_epoch(earlier) for earlier in range(epoch))
    for step in range(first, first + order.steps_in_epoch(epoch)):
        rows = order.rows(step)
        np.testing.assert_array_equal(np.concatenate(rows), order.global_batch(step))
        if order.row_capacity is None:
            assert {len(row) for row in rows} == {1}
        else:
            assert max(int(order.lengths[row].sum()) for row in rows) <= order.row_capacity


def groups(rows: Iterable[Iterable[int]]) -> Counter[frozenset[int]]:
    return Counter(frozenset(int(i) for i in row) for row in rows)


@quick
@given(packed_orders.filter(lambda order: order.global_batch_size is not None))
def test_a_batch_of_so_many_samples_has_the_same_ones_packed(order: Order) -> None:
    unpacked = replace(order, row_capacity=None)
    packer = PACKERS[order.strategy]
    assert order.row_capacity is not None
    for step in range(2 * order.steps_in_epoch(0)):
        ids = unpacked.global_batch(step)
        assert sorted(order.global_batch(step)) == sorted(ids)
        rows = packer(order.lengths[ids], order.row_capacity, len(ids))
        expected = [ids[rows == row] for row in range(rows.max() + 1)]
        assert groups(order.rows(step)) == groups(expected)


@quick
@given(packed_orders.filter(lambda order: order.global_batch_tokens is not None))
def test_a_batch_of_so_many_tokens_has_the_rows_that_they_fill(order: Order) -> None:
    assert order.row_capacity is not None
    assert order.global_batch_tokens is not None
    per_step = order.global_batch_tokens // order.row_capacity
    *steps, last = [len(order.rows(step)) for step in range(order.steps_in_epoch(0))]
    assert set(steps) <= {per_step}
    assert 1 <= last <= per_step


def test_windows_are_packed_as_a_whole_and_their_rows_are_shuffled() -> None:
    lengths = skewed_lengths(400)
    order = Order(lengths, 0, global_batch_tokens=512, row_capacity=512)
    rows = [row for step in range(order.steps_in_epoch(0)) for row in order.rows(step)]
    least = math.ceil(lengths.sum() / 512)
    assert least <= len(rows) <= least + MIN_WINDOWS + 1  # a window leaves a row unfilled or two
    longest = [int(lengths[row].max()) for row in rows]  # in a window it falls from row to row
    assert sum(second > first for first, second in pairwise(longest)) > len(rows) / 4


@pytest.mark.parametrize(("rows", "at_least"), [(1, 0.98), (8, 0.995)])
def test_first_fit_decreasing_fills_the_rows(rows: int, at_least: float) -> None:
    lengths = skewed_lengths(20_000)
    order = Order(lengths, 0, global_batch_tokens=rows * 512, row_capacity=512)
    num_rows = sum(len(order.rows(step)) for step in range(order.steps_in_epoch(0)))
    fill = lengths.sum() / 512 / num_rows
    print(f"fill {fill:.4f}")
    assert fill > at_least


def test_packed_epochs_differ_in_the_composition_of_rows() -> None:
    order = Order(skewed_lengths(100), 0, global_batch_tokens=1024, row_capacity=512)
    begin, end = order.steps_in_epoch(0), order.total_steps(2)
    first = groups(row for step in range(begin) for row in order.rows(step))
    second = groups(row for step in range(begin, end) for row in order.rows(step))
    assert (first & second).total() < first.total() / 2


# --- mixing ---


def mixed(sizes: list[int], shares: list[float], **options: Any) -> Order:
    """Lengths are random; the samples of the sources lie interleaved."""
    random = np.random.default_rng(0)
    sources = random.permutation(np.repeat(np.arange(len(sizes)), sizes))
    lengths = random.integers(1, MAX_LENGTH, len(sources))
    options = options or {"global_batch_size": 4}
    return Order(lengths, 0, source_of_sample=sources, shares=tuple(shares), **options)


mixtures = st.lists(st.tuples(st.integers(1, 40), st.floats(0.01, 10)), min_size=1, max_size=4).map(
    lambda sources: [list(each) for each in zip(*sources, strict=True)]
)


def times_seen(order: Order, epochs: int) -> np.ndarray:
    ids = [batch for epoch in range(epochs) for batch in order.epoch_batches(epoch)]
    return np.bincount(np.concatenate(ids), minlength=len(order.lengths))


@quick
@given(mixtures, st.integers(1, 7))
def test_samples_of_a_source_come_equally_often_and_sources_in_their_shares(
    mixture: list[list[Any]], epochs: int
) -> None:
    order = mixed(*mixture)
    seen = times_seen(order, epochs)
    assert seen.sum() == epochs * len(order.lengths)
    for source, share in enumerate(mixture[1]):
        of_source = seen[order.source_of_sample == source]
        assert of_source.max() - of_source.min() <= 1
        exact = epochs * len(order.lengths) * share / sum(mixture[1])
        assert abs(of_source.sum() - exact) < epochs


@quick
@given(mixtures, bounds, packed)
def test_a_mixture_is_packed_cut_and_resumed_like_any_order(
    mixture: list[list[Any]], bound: dict[str, int], packing: dict[str, Any]
) -> None:
    bound = {name: max(number, 120) for name, number in bound.items()}
    order = mixed(*mixture, **bound, **packing)
    walked = [batch for epoch in range(2) for batch in order.epoch_batches(epoch)]
    for step in reversed(range(len(walked))):
        np.testing.assert_array_equal(replace(order).global_batch(step), walked[step])
        np.testing.assert_array_equal(np.concatenate(order.rows(step)), walked[step])
    assert sum(map(len, walked)) == 2 * len(order.lengths)


def test_shares_are_counted_as_one_would_by_hand() -> None:
    def counts(sizes: list[int], shares: list[float]) -> list[int]:
        order = mixed(sizes, shares)
        ids = np.concatenate(order.epoch_batches(0))
        assert order.source_of_sample is not None
        return np.bincount(order.source_of_sample[ids], minlength=len(sizes)).tolist()

    assert counts([50, 50], [0.29, 0.71]) == [29, 71]
    assert counts([90, 10], [1, 1]) == [50, 50]
    assert counts([4, 3, 3], [1, 1, 1]) == [4, 3, 3]  # thirds of 10: the first takes the rest
    assert counts([1, 99], [1, 0.001]) == [100, 0]


def test_a_source_is_drawn_in_new_permutations_pass_after_pass() -> None:
    """Half of a source an epoch: which half differs, and two epochs together are the whole."""
    order = mixed([40, 20], [1, 2])
    epochs = [np.concatenate(order.epoch_batches(epoch)) for epoch in range(8)]
    halves = [np.unique(ids) for ids in epochs[::2]]
    assert order.source_of_sample is not None
    of_first = [frozenset(half[order.source_of_sample[half] == 0].tolist()) for half in halves]
    assert [len(half) for half in of_first] == [20] * 4
    assert len(set(of_first)) == 4
    assert (times_seen(order, 2)[order.source_of_sample == 0] == 1).all()


def test_the_mixture_is_the_same_on_every_machine_and_numpy() -> None:
    sources = np.array([0, 0, 0, 1, 1, 1, 1])
    order = Order(
        np.array([5, 1, 4, 2, 3, 9, 8]), 3, 2, source_of_sample=sources, shares=(5.0, 2.0)
    )
    assert [b.tolist() for b in order.epoch_batches(1)] == [[0], [2, 2], [0, 1], [6, 4]]


def test_a_share_of_a_source_without_samples_is_refused() -> None:
    order = Order(np.ones(3), 0, 2, source_of_sample=np.zeros(3, np.int64), shares=(0.5, 0.5))
    with pytest.raises(ValueError, match=r"source 1 has a share of 0\.5, no samples"):
        order.global_batch(0)
