"""What of a directory was on the disk when it got its name: a power cut takes away what was not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def watched(monkeypatch: pytest.MonkeyPatch, name: str) -> tuple[list[Path], list[Path]]:
    """From here on: what was not synced when a directory was renamed to `name`, itself among it;
    and what was synced after that."""
    synced: list[Path] = []
    unsynced: list[Path] = []
    fsync, replace = os.fsync, os.replace

    def record(number: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{number}")))
        fsync(number)

    def look(source: Path, target: Path) -> None:
        if Path(target).name == name:
            unsynced.extend({source, *source.rglob("*")} - {*synced})
            synced.clear()
        replace(source, target)

    monkeypatch.setattr(os, "fsync", record)
    monkeypatch.setattr(os, "replace", look)
    return unsynced, synced
