"""Texts one after the other, cut into blocks of the same length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Piece(NamedTuple):
    """Tokens start to end, exclusive, of a text, by its number."""

    text: int
    start: int
    end: int


def blocks(sizes: Iterable[int], room: int) -> Iterator[list[Piece]]:
    """The blocks that texts of these sizes fill, in their order: each holds `room` tokens, the last
    one what is left. Every token of every text stands in one.

    Between two pieces of a block, which are of two texts, stands a separator: one token. Where it
    is the block's last one, the piece behind it is empty.

    room: of a block, > 0.
    """
    block: list[Piece] = []
    used = 0
    for text, size in enumerate(sizes):
        start = 0
        if size and block:
            used += 1
        while start < size or used == room:
            end = min(size, start + room - used)
            block.append(Piece(text, start, end))
            used += end - start
            start = end
            if used == room:
                yield block
                block, used = [], 0
    if block:
        yield block
