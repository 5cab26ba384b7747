"""What `bigft check` shows of prepared data: how long rows are, and which tokens are targets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.text import Text

    from bigft.data.records import Row
    from bigft.data.split import PreparedSplit
    from bigft.tasks.protocol import Task

BARS = 6
BAR_WIDTH = 30
PIECE_CHARACTERS = 240
PIECES = 12
TARGET_STYLE = "bold green"


def histogram(lengths_S: NDArray[np.int64]) -> Iterator[str]:
    """How many rows have how many tokens, a line per range, at most BARS."""
    import numpy as np

    first, last = int(lengths_S.min()), int(lengths_S.max())
    width = -(-(last - first + 1) // BARS)
    counts = np.bincount((lengths_S - first) // width)
    ranges = [f"{low:,}-{low + width - 1:,}" for low in range(first, last + 1, width)]
    for name, count in zip(ranges, counts, strict=True):
        bar = "#" * -(-int(count) * BAR_WIDTH // int(counts.max()))
        yield f"  {name:>15} {bar:{BAR_WIDTH}} {count:,}"


def samples(task: Task, rows: Sequence[Row], coloured: bool) -> Iterator[Text]:
    """The rows as text, what is not shown as "..."; targets in colour, or between marks."""
    from rich.text import Text

    for row in rows:
        text = Text("  ")
        pieces = task.preview(row)
        for piece, is_target in pieces[:PIECES]:
            shown = _printable(_clipped(piece))
            if is_target and not coloured:
                shown = f"\u27e6{shown}\u27e7"
            text.append(shown, TARGET_STYLE if is_target else "")
        yield text.append(" ..." if len(pieces) > PIECES else "")


def examples(task: Task, train: PreparedSplit) -> Iterator[str]:
    """What else the task shows of its training set."""
    yield from map(_printable, task.examples(train))


def _clipped(piece: str) -> str:
    half = PIECE_CHARACTERS // 2
    return piece if len(piece) <= 2 * half else f"{piece[:half]} ... {piece[-half:]}"


def _printable(piece: str) -> str:
    """Lines stay lines, indented; data must not steer the terminal."""
    marked = (c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in piece)
    return "".join(marked).replace("\n", "\n  ")
