"""What a rule answers with: keys that do not go together."""

from __future__ import annotations

from typing import NamedTuple


class Clash(NamedTuple):
    """keys: dotted, the one to point at first.  what, fix: as in Problem."""

    keys: tuple[str, ...]
    what: str
    fix: str = ""
