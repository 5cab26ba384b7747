"""What stands in the place of a file that a clone did not fetch."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple


class Pointer(NamedTuple):
    """tool: whose it is.  fetch: the command of git that fetches the file."""

    tool: str
    fetch: str


BEGINNINGS = {
    b"version https://git-lfs": Pointer("Git LFS", "lfs pull"),
    b"/annex/objects/": Pointer("git-annex", "annex get"),
}


def pointer_in(path: str | Path) -> Pointer | None:
    """What the file is a pointer of; None for a file of its own."""
    with open(path, "rb") as file:
        head = file.read(max(map(len, BEGINNINGS)))
    return next((found for start, found in BEGINNINGS.items() if head.startswith(start)), None)
