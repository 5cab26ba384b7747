"""Rows as a table and as a picture. `python benchmarks/report.py FILE.csv ...`: short tables."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

Row = Mapping[str, Any]

WIDTH = 150  # where the output is no terminal
SHOWN: dict[str, Callable[[Row], str]] = {
    "median ms": lambda row: number(row, "median_ms"),
    "p20 - p80": lambda row: f"{number(row, 'p20_ms')} - {number(row, 'p80_ms')}",
    "x floor": lambda row: number(row, "ratio_to_floor"),
    "speedup": lambda row: number(row, "times_as_fast_as_baseline"),
    "GB/s": lambda row: number(row, "gb_per_s"),
    "TFLOP/s": lambda row: number(row, "tflop_per_s"),
    "peak MiB": lambda row: number(row, "peak_mib"),
    "extra MiB": lambda row: number(row, "extra_mib"),
    "loss err": lambda row: number(row, "error_loss"),
    "grad err": lambda row: max(
        (number(row, name) for name in gradients(row)), key=float, default="-"
    ),
}


SHORT = ("median ms", "x floor", "speedup", "peak MiB")


def number(row: Row, column: str) -> str:
    return f"{float(row[column]):.3g}" if row.get(column) not in (None, "") else "-"


def gradients(row: Row) -> list[str]:
    """The columns that hold a gradient's error."""
    return [name for name in row if name.startswith("error_grad_") and row[name] != ""]


def print_table(case: str, rows: Sequence[Row], shown: Collection[str] = tuple(SHOWN)) -> None:
    """Of one case: what was measured, what was not and why, and the goals."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=WIDTH)
    table = Table(title=escape(case), title_justify="left", box=box.SIMPLE, padding=(0, 1, 0, 0))
    for heading in ("provider", *shown):
        justify: Any = "left" if heading == "provider" else "right"
        table.add_column(heading, justify=justify, no_wrap=True)
    measured = [row for row in rows if not row.get("not_measured")]
    for row in measured:
        table.add_row(escape(row["provider"]), *(SHOWN[name](row) for name in shown))
    console.print(table)
    for row in rows:
        if row.get("not_measured"):
            console.print(escape(f"  {row['provider']}: {row['not_measured']}"), highlight=False)
    for row in rows:
        if row.get("goals"):
            console.print(escape(f"  goals of {row['provider']}: {row['goals']}"), highlight=False)
    if rows and rows[0].get("copy_gb_per_s"):
        ceilings = " GB/s, ".join(number(rows[0], c) for c in ("copy_gb_per_s", "gemm_tflop_per_s"))
        console.print(f"  ceilings of this run: {ceilings} TFLOP/s\n", highlight=False)


def save_picture(path: Path, title: str, rows: Sequence[Row]) -> None:
    """One panel per case: how many times the floor every provider takes."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        print("no picture: matplotlib is missing (pip install 'bigft[bench]')", file=sys.stderr)
        return
    cases: dict[str, list[Row]] = {}
    for row in rows:
        if row.get("ratio_to_floor"):
            cases.setdefault(row["case"], []).append(row)
    if not cases:
        return
    heights = [len(measured) + 1.5 for measured in cases.values()]
    figure = Figure(figsize=(9, 0.3 * sum(heights) + 1), layout="constrained")
    panels = figure.subplots(len(cases), squeeze=False, height_ratios=heights)[:, 0]
    for panel, (case, measured) in zip(panels, cases.items(), strict=True):
        fastest_last = sorted(measured, key=lambda row: -float(row["ratio_to_floor"]))
        ratios = [float(row["ratio_to_floor"]) for row in fastest_last]
        names = [row["provider"] for row in fastest_last]
        ours = ["tab:orange" if name.startswith("ours") else "tab:gray" for name in names]
        bars = panel.barh(names, ratios, color=ours)
        panel.bar_label(bars, [f"{ratio:.3g}" for ratio in ratios], padding=3)
        panel.axvline(1, color="black", linewidth=1)
        panel.set_xscale("log")
        panel.set_xlim(min(0.8, *ratios), 2 * max(ratios))
        panel.set_title(case, loc="left", fontsize=9)
    panels[-1].set_xlabel("times the floor measured in the same run (black line: 1)")
    figure.suptitle(f"{title}, {rows[0]['device']}, {rows[0]['date']}")
    figure.savefig(path, dpi=120)
    print(path)


def last_rows(path: str | Path) -> list[Row]:
    """Of a CSV file: each provider's last row of each case, the cases in the file's order."""
    with open(path, newline="", encoding="utf-8") as file:
        rows = {(row["case"], row["provider"]): row for row in csv.DictReader(file)}
    return list(rows.values())


def main(paths: Sequence[str]) -> None:
    """Prints short tables of CSV files."""
    for path in paths:
        rows = last_rows(path)
        for case in dict.fromkeys(row["case"] for row in rows):
            print_table(case, [row for row in rows if row["case"] == case], SHORT)


if __name__ == "__main__":
    main(sys.argv[1:])
