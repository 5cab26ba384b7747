"""Pairs of runs of sentences: all of a document, half of them with what follows."""

from __future__ import annotations

import random
from typing import Any

import pytest

from bigft.runtime.seeding import address
from bigft.tasks.masked_lm.pairs import Pair, Run, pairs


def documents(seed: int) -> list[list[int]]:
    source = random.Random(seed)
    return [[source.randrange(1, 12) for _ in range(source.randrange(2, 15))] for _ in range(6)]


def made(sizes: list[list[int]], number: int, room: int, *place: Any) -> list[Pair]:
    return list(pairs(sizes, number, room, address("test", *place)))


@pytest.mark.parametrize("seed", range(20))
def test_every_sentence_stands_in_a_pair_once_and_in_order(seed: int) -> None:
    sizes, room = documents(seed), 8 + seed
    for number in range(len(sizes)):
        at = 0
        for pair in made(sizes, number, room, seed, number):
            assert pair.first.document == number
            assert pair.first.start == at < pair.first.end
            at = pair.first.end
            if pair.follows:
                assert pair.second == Run(number, at, pair.second.end)
                at = pair.second.end
            else:
                assert pair.second.document != number
            assert pair.second.start < pair.second.end
        assert at == len(sizes[number])


@pytest.mark.parametrize("seed", range(20))
def test_what_is_too_long_is_cut_and_nothing_else(seed: int) -> None:
    sizes, room = documents(seed), 2 + seed
    for number in range(len(sizes)):
        for pair in made(sizes, number, room, seed, number):
            whole = [
                sum(sizes[run.document][run.start : run.end]) for run in (pair.first, pair.second)
            ]
            kept = [pair.first_tokens, pair.second_tokens]
            assert all(1 <= part <= of for part, of in zip(kept, whole, strict=True))
            assert sum(kept) == min(room, sum(whole))


def test_half_of_the_pairs_keep_what_follows_but_for_a_last_sentence_alone() -> None:
    sizes = [[5] * 400, [5] * 7, [5] * 3]
    found = [pair for n in range(50) for pair in made(sizes, 0, 40, n)]
    free = [pair for pair in found if pair.first != Run(0, 399, 400)]
    share = sum(pair.follows for pair in free) / len(free)
    assert abs(share - 0.5) < 5 * (0.25 / len(free)) ** 0.5
    assert not any(pair.follows for pair in found if pair not in free)
    foreign = [pair.second.document for pair in found if not pair.follows]
    assert abs(foreign.count(1) / len(foreign) - 0.5) < 5 * (0.25 / len(foreign)) ** 0.5


def test_the_same_draw_makes_the_same_pairs_and_another_one_others() -> None:
    sizes = documents(0)
    assert made(sizes, 2, 9, 1) == made(sizes, 2, 9, 1)
    assert len({str(made(sizes, 2, 9, n)) for n in range(20)}) > 10
