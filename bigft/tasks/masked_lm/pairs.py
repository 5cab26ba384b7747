"""Pairs of runs of sentences: the second follows the first in its document, or is of another."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

SHARE_THAT_FOLLOWS = 0.5


class Run(NamedTuple):
    """Sentences start to end, exclusive, of a document, by its number."""

    document: int
    start: int
    end: int


class Pair(NamedTuple):
    """Of the first run the last `first_tokens` are taken, of the second the first
    `second_tokens`."""

    first: Run
    second: Run
    follows: bool
    first_tokens: int
    second_tokens: int


def pairs(documents: Sequence[Sequence[int]], number: int, room: int, draw: int) -> Iterator[Pair]:
    """The pairs of one document, as BERT was pretrained on. All its sentences stand in a first run
    or in a second one that follows it; what was left out for a foreign one begins the next pair.

    A run of sentences that fills `room` tokens is cut between two of them, anywhere. Half of the
    pairs keep what follows; the others get as much of another document, from any sentence on. A
    sentence that is left alone at the end always does. What is too long is cut at the outer ends.

    documents: the tokens of each sentence, > 0; at least two documents.  room: at least 2.
    draw: an address.
    """
    bits = np.random.Philox(draw)

    def below(size: int) -> int:
        return int(bits.random_raw()) % size

    sizes, start = documents[number], 0
    while start < len(sizes):
        end = _filled(sizes, start, room, least=2)
        border = start + 1 + below(end - start - 1) if end - start > 1 else end
        first, rest = Run(number, start, border), Run(number, border, end)
        follows = border < end and below(1 << 20) < SHARE_THAT_FOLLOWS * (1 << 20)
        if follows:
            second, start = rest, end
        else:
            other = below(len(documents) - 1)
            other += other >= number
            begin = below(len(documents[other]))
            left = max(1, room - sum(sizes[first.start : first.end]))
            second, start = Run(other, begin, _filled(documents[other], begin, left)), border
        kept = _cut(_tokens(documents, first), _tokens(documents, second), room)
        yield Pair(first, second, follows, *kept)


def _filled(sizes: Sequence[int], start: int, room: int, least: int = 1) -> int:
    """The end of the shortest run from there that fills the room, of so many sentences at least;
    of one that does not the end of the document."""
    tokens = 0
    for at in range(start, len(sizes)):
        tokens += sizes[at]
        if tokens >= room and at + 1 >= start + least:
            return at + 1
    return len(sizes)


def _tokens(documents: Sequence[Sequence[int]], run: Run) -> int:
    return sum(documents[run.document][run.start : run.end])


def _cut(first: int, second: int, room: int) -> tuple[int, int]:
    """As many tokens of both as there is room for: of the longer one less."""
    kept = min(first, max(room - second, room // 2))
    return kept, min(second, room - kept)
