"""Which tokens are masked: as often as asked for, whole words, the same for the same draw."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from bigft.data.records import IGNORE_INDEX
from bigft.runtime.seeding import address
from bigft.tasks.masked_lm.masking import Masking, masked

MASK = 1
RANDOM_IDS = np.arange(100, 150)
HOW = Masking(0.15, 0.8, 0.1, MASK, RANDOM_IDS)
SIGMAS = 5.0


def drawn(
    num_rows: int, length: int, how: Masking = HOW, begins: Any = None, maskable: Any = None
) -> tuple[Any, Any, Any]:
    """(ids_RT, seen_RT, labels_RT) of rows with draws of their own."""
    every_T = np.ones(length, bool)
    rows = []
    for row in range(num_rows):
        ids_T = np.random.default_rng(row).integers(200, 300, length)
        arguments = (
            every_T if maskable is None else maskable,
            every_T if begins is None else begins,
        )
        rows.append((ids_T, *masked(ids_T, *arguments, address(7, row), how)))
    return tuple(np.stack(each) for each in zip(*rows, strict=True))  # type: ignore[return-value]


def within(count: int, total: int, share: float) -> bool:
    """Whether a binomial count is as near to its mean as it nearly always is."""
    return abs(count - share * total) <= SIGMAS * (share * (1 - share) * total) ** 0.5


def test_as_many_tokens_are_targets_as_asked_for_and_seen_as_asked_for() -> None:
    ids, seen, labels = drawn(1000, 100)
    targets = labels != IGNORE_INDEX
    assert (labels[targets] == ids[targets]).all()
    assert (seen[~targets] == ids[~targets]).all()
    count = int(targets.sum())
    assert within(count, ids.size, 0.15)
    assert within(int((seen[targets] == MASK).sum()), count, 0.8)
    assert within(int(np.isin(seen[targets], RANDOM_IDS).sum()), count, 0.1)
    assert within(int((seen[targets] == ids[targets]).sum()), count, 0.1)
    # Every place of a row, and every random token, is as likely as the others.
    assert all(within(int(each), 1000, 0.15) for each in targets.sum(axis=0))
    tokens, counts = np.unique(seen[np.isin(seen, RANDOM_IDS)], return_counts=True)
    assert tokens.tolist() == RANDOM_IDS.tolist()
    assert all(within(int(each), int(counts.sum()), 1 / 50) for each in counts)


def test_it_is_what_a_loop_over_the_bits_of_philox_gives() -> None:
    ids_T, draw = np.arange(200, 240), address("here")
    begins_T = np.arange(40) % 3 != 1
    maskable_T = np.arange(40) % 7 != 0
    seen_T, labels_T = masked(
        ids_T, maskable_T, begins_T, draw, Masking(0.5, 0.5, 0.3, 1, RANDOM_IDS)
    )
    bits = [int(each) >> 11 for each in np.random.Philox(draw).random_raw(120)]
    word = 0
    for place in range(40):
        word = place if begins_T[place] else word
        expected = int(ids_T[place]), IGNORE_INDEX
        if maskable_T[place] and bits[word] / 2**53 < 0.5:
            kind, seen = bits[40 + place] / 2**53, int(ids_T[place])
            if kind < 0.5:
                seen = 1
            elif kind < 0.8:
                seen = int(RANDOM_IDS[bits[80 + place] * 50 >> 53])
            expected = seen, int(ids_T[place])
        assert (seen_T[place], labels_T[place]) == expected, place


def test_whole_words_are_chosen_and_as_many_tokens_as_without() -> None:
    begins = np.array([True, False, True, False, False] * 10)
    _, seen, labels = drawn(2000, 50, begins=begins)
    targets = (labels != IGNORE_INDEX).reshape(2000, 10, 5)
    assert (targets[:, :, 0] == targets[:, :, 1]).all()
    assert (targets[:, :, 2:] == targets[:, :, 2:3]).all()
    assert within(int(targets[:, :, 0].sum()), 20000, 0.15)
    assert within(int(targets[:, :, 2].sum()), 20000, 0.15)
    # What the model sees is drawn for each token of a word.
    masks = (seen == MASK).reshape(2000, 10, 5)[targets[:, :, 2]][:, 2:]
    assert {(0, 1, 1), (1, 0, 1), (1, 1, 0), (1, 1, 1)} <= {*map(tuple, masks.astype(int).tolist())}


def test_what_may_not_be_masked_never_is() -> None:
    maskable = np.arange(20) % 4 == 1
    ids, seen, labels = drawn(500, 20, maskable=maskable)
    assert (labels[:, ~maskable] == IGNORE_INDEX).all()
    assert (seen[:, ~maskable] == ids[:, ~maskable]).all()
    assert within(int((labels != IGNORE_INDEX).sum()), 500 * 5, 0.15)


@pytest.mark.parametrize(("mask", "random"), [(1.0, 0.0), (0.0, 1.0), (0.0, 0.0)])
def test_shares_of_one_and_none_are_kept(mask: float, random: float) -> None:
    ids, seen, labels = drawn(50, 50, HOW._replace(mask_share=mask, random_share=random))
    targets = labels != IGNORE_INDEX
    assert ((seen == MASK) == (targets & (mask == 1.0))).all()
    assert (np.isin(seen, RANDOM_IDS) == (targets & (random == 1.0))).all()
    assert (seen[~targets] == ids[~targets]).all()


def test_a_draw_gives_the_same_masks_always_and_another_one_others() -> None:
    ids_T, every_T = np.arange(200, 300), np.ones(100, bool)
    one, again, other = (masked(ids_T, every_T, every_T, draw, HOW) for draw in (5, 5, 6))
    assert [each.tolist() for each in one] == [each.tolist() for each in again]
    assert one[1].tolist() != other[1].tolist()
    assert ids_T.tolist() == list(range(200, 300))  # what it was given stays as it is


def test_a_short_row_may_draw_no_target() -> None:
    _, _, labels = drawn(2000, 3)
    empty = int((labels == IGNORE_INDEX).all(axis=1).sum())
    assert within(empty, 2000, 0.85**3)
