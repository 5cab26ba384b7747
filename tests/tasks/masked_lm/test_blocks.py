"""Joined texts: every token once, in order, in rows that are full."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from bigft.tasks.masked_lm.blocks import Piece, blocks

SEPARATOR = None


def filled(sizes: list[int], room: int) -> list[list[tuple[int, int] | None]]:
    """The blocks as (text, token), SEPARATOR between pieces."""
    found = []
    for block in blocks(sizes, room):
        tokens: list[tuple[int, int] | None] = []
        for piece in block:
            tokens += [SEPARATOR] * bool(tokens)
            tokens += [(piece.text, at) for at in range(piece.start, piece.end)]
        found.append(tokens)
    return found


def test_blocks_of_a_hand_made_case() -> None:
    assert list(blocks([3, 2, 0, 6], 4)) == [
        [Piece(0, 0, 3), Piece(1, 0, 0)],  # the separator is its last token
        [Piece(1, 0, 2), Piece(3, 0, 1)],
        [Piece(3, 1, 5)],
        [Piece(3, 5, 6)],
    ]
    assert list(blocks([4, 4], 4)) == [[Piece(0, 0, 4)], [Piece(1, 0, 4)]]  # nothing to separate
    assert list(blocks([], 4)) == []
    assert list(blocks([0, 0], 4)) == []


@pytest.mark.parametrize("seed", range(20))
def test_all_tokens_stand_in_full_blocks_once_and_in_order(seed: int) -> None:
    source = random.Random(seed)
    sizes = [source.choice([0, 1, 2, 3, 9, 40]) for _ in range(source.randrange(1, 30))]
    room = source.randrange(1, 12)
    found = filled(sizes, room)
    tokens = [token for block in found for token in block if token is not SEPARATOR]
    assert tokens == [(text, at) for text, size in enumerate(sizes) for at in range(size)]
    assert all(len(block) == room for block in found[:-1])
    assert all(0 < len(block) <= room for block in found[-1:])
    for block in found:
        assert block[0] is not SEPARATOR
        for left, right in pairwise(block):
            both = left is not SEPARATOR and right is not SEPARATOR
            assert not both or left[0] == right[0]  # texts never touch
            assert left is not SEPARATOR or right is not SEPARATOR
