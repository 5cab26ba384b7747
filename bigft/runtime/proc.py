"""What Linux tells in /proc. Needs no torch: `bigft env` uses it where torch is broken."""

from __future__ import annotations

from pathlib import Path


def read_fields(path: str) -> dict[str, str]:
    """The first value of every `key: value` line, as in /proc/cpuinfo and /proc/meminfo."""
    values: dict[str, str] = {}
    for line in Path(path).read_text().splitlines():
        key, _, value = line.partition(":")
        values.setdefault(key.strip(), value.strip())
    return values
