"""What a rank takes of a global batch, and of an evaluation: all of it once, evenly."""

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

from bigft.data.cut import cut, shard_for_evaluation
from bigft.data.order import Order

MAX_LENGTH = 40
WORLDS = (1, 2, 4, 7)

lengths_of_samples = st.lists(st.integers(1, MAX_LENGTH), min_size=1, max_size=200)
quick = settings(max_examples=60, deadline=None)


def padded(ids: np.ndarray, lengths: np.ndarray) -> int:
    return len(ids) * int(lengths[ids].max()) if len(ids) else 0


def skewed_lengths(num_samples: int) -> np.ndarray:
    random = np.random.default_rng(0)
    return np.clip(random.lognormal(3, 1, num_samples).astype(np.int64), 1, 512)


def flat(parts: Iterable[Iterable[np.ndarray]]) -> Counter[int]:
    return Counter(int(i) for rank in parts for part in rank for i in part)


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
@given(lengths_of_samples, st.none() | st.just(2 * MAX_LENGTH))
def test_the_world_sees_the_same_rows_whatever_its_size(
    lengths: list[int], row_capacity: int | None
) -> None:
    order = Order(np.array(lengths), 0, global_batch_size=16, row_capacity=row_capacity)
    for step in range(order.steps_in_epoch(0)):
        rows = order.rows(step)
        tokens = np.array([order.lengths[row].sum() for row in rows])
        for world_size in WORLDS:
            parts = cut(np.arange(len(rows)), tokens, world_size, max_samples=3)
            assert flat(parts) == Counter(range(len(rows)))


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
    with pytest.raises(ValueError, match="row 4 has 50 tokens: a batch holds 49"):
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
