"""Rows of results: what stands in each of them, and where they go. Imports no torch."""

from __future__ import annotations

import csv
import datetime
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import bigft

RESULTS = Path(__file__).resolve().parent / "results"

Row = dict[str, Any]


def versions(packages: Iterable[str]) -> Row:
    """Of these packages, of bigft, and today's date."""
    return {
        **{package: _version(package) for package in packages},
        "bigft": bigft.__version__,
        "date": datetime.date.today().isoformat(),
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def write_rows(path: Path, names: Sequence[str], rows: Iterable[Row]) -> None:
    """Appends: a second run on the same day adds its rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names)
        if file.tell() == 0:
            writer.writeheader()
        for row in rows:
            writer.writerow(
                {key: f"{value:.6g}" if isinstance(value, float) else value
                 for key, value in row.items()}
            )  # fmt: skip
