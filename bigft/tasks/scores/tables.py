"""Rows of precision, recall and F1, and the plain-text table that users know of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class TableRow(NamedTuple):
    precision: float
    recall: float
    f1: float
    support: int


EMPTY_ROW = TableRow(0.0, 0.0, 0.0, 0)


def format_table(title: str, rows: Mapping[str, TableRow], summary: Sequence[str]) -> str:
    """The rows by name; those that `summary` names stand at the foot, in its order."""
    width = max(map(len, [*rows, "weighted avg"]))
    headers = "".join(f" {name:>10}" for name in ("precision", "recall", "f1-score", "support"))

    def line(name: str) -> str:
        *scores, support = rows[name]
        cells = "".join(f" {score:>10.4f}" for score in scores)
        return f"{name:>{width}}{cells} {support:>10}"

    body = [line(name) for name in rows if name not in summary]
    foot = [line(name) for name in summary]
    return "\n".join([title, "", " " * width + headers, "", *body, "", *foot])
