"""How a tag may be written, in data and in models: PER-B and B_PER are B-PER."""

from __future__ import annotations

from collections.abc import Sequence

OUTSIDE = "O"
PREFIXES = frozenset("BIESLUM")  # of all schemes
# Where the prefix (B) and the type (X) stand, and what separates them. Capitals do not matter.
SPELLINGS = tuple(form for mark in "-_:./| " for form in (f"B{mark}X", f"X{mark}B"))
OUTSIDE_NAMES = frozenset({"o", "0", "out", "outside", "other", "none", "null", "_", "-", "*"})


def usual_name(tag: str, spelling: str) -> str | None:
    """The tag as B-X or O; None where it is not of the spelling."""
    if tag.lower() in OUTSIDE_NAMES:
        return OUTSIDE
    mark = spelling[1]
    if spelling.startswith("B"):
        prefix, _, entity_type = tag.partition(mark)
    else:
        entity_type, _, prefix = tag.rpartition(mark)
    known = prefix.upper() in PREFIXES and entity_type
    return f"{prefix.upper()}-{entity_type}" if known else None


def usual_names(labels: Sequence[str]) -> list[str]:
    """All labels as B-X and O, in the first spelling that reads each; else as they are."""
    for spelling in SPELLINGS:
        read = [usual_name(label, spelling) for label in labels]
        names = [name for name in read if name is not None]
        if len(names) == len(labels) == len(set(names)):
            return names
    return list(labels)
