"""What `bigft check` shows of prepared data: how long rows are, which tokens are targets, and what
carries which label."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.text import Text

    from bigft.data.records import Feature, Record
    from bigft.tasks.protocol import Task

BARS = 6
BAR_WIDTH = 30
PIECE_CHARACTERS = 240
PIECES = 12
TARGET_STYLE = "bold green"
WORDS = 40  # of a record
EXAMPLES = 5  # of a label
LABELS = 25


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


def samples(task: Task, features: Sequence[Feature], coloured: bool) -> Iterator[Text]:
    """The rows as text, what is not shown as "..."; targets in colour, or between marks."""
    from rich.text import Text

    for feature in features:
        text = Text("  ")
        pieces = task.preview(feature)
        for piece, is_target in pieces[:PIECES]:
            shown = _printable(_clipped(piece))
            if is_target and not coloured:
                shown = f"\u27e6{shown}\u27e7"
            text.append(shown, TARGET_STYLE if is_target else "")
        yield text.append(" ..." if len(pieces) > PIECES else "")


def tagged_words(records: Iterable[Record]) -> Iterator[str]:
    """The words of each record with their tags, as word/tag; words outside of entities alone."""
    for record in records:
        pairs = list(zip(record.fields["tokens"], record.fields["tags"], strict=True))
        shown = [word if tag == "O" else f"{word}/{tag or 'null'}" for word, tag in pairs[:WORDS]]
        yield "  " + _printable(" ".join(shown)) + (" ..." if len(pairs) > WORDS else "")


def examples_by_label(records: Iterable[Record], labels: Sequence[str]) -> Iterator[str]:
    """Different entities of each type of the labels, of plain labels words, a line per type."""
    from bigft.config.tag_names import OUTSIDE
    from bigft.data.tag_schemes import are_bio, split_tag
    from bigft.tasks.token_classification.metric import entities

    are_tags = are_bio(labels)
    names = [split_tag(label)[1] if are_tags else label for label in labels if label != OUTSIDE]
    found: dict[str, dict[str, None]] = {name: {} for name in names}  # a dict keeps the order
    for record in records:
        words = record.fields["tokens"]
        tags = [tag or OUTSIDE for tag in record.fields["tags"]]
        spans = entities(tags) if are_tags else [(tag, at, at + 1) for at, tag in enumerate(tags)]
        for name, first, end in spans:
            if name != OUTSIDE and len(found[name]) < EXAMPLES:
                found[name][" ".join(words[first:end])] = None
        if all(len(examples) == EXAMPLES for examples in found.values()):
            break
    for name, examples in list(found.items())[:LABELS]:
        shown = ", ".join(_printable(_clipped(text)) for text in examples)
        yield f"  {_printable(name)}: {shown or 'none'}"
    if len(found) > LABELS:
        yield f"  and {len(found) - LABELS} more"


def _clipped(piece: str) -> str:
    half = PIECE_CHARACTERS // 2
    return piece if len(piece) <= 2 * half else f"{piece[:half]} ... {piece[-half:]}"


def _printable(piece: str) -> str:
    """Lines stay lines, indented; data must not steer the terminal."""
    marked = (c if c.isprintable() or c == "\n" else repr(c)[1:-1] for c in piece)
    return "".join(marked).replace("\n", "\n  ")
