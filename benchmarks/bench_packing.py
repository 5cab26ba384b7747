#!/usr/bin/env python3
"""Packing 10 million lengths: csrc/host beside the same algorithms in Python.

The Python ones pack the first 200,000 lengths, and their time is scaled to all: packing goes window
by window, so it grows with their number. Both must give the same rows. `fill` is the share of the
rows that holds tokens; no packing has fewer rows than `least_rows`. The last case is what a run
waits for once per epoch: all samples shuffled, packed and put in order.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import measure
import numpy as np
import torch
from harness import QUICK_ROUNDS, conditions, parse, results_file
from numpy.typing import NDArray
from report import print_table
from rows import Row, write_rows

from bigft.data.order import Order
from bigft.data.packing import PACKERS, Strategy

NAME = "packing"
NUM_LENGTHS, NUM_IN_PYTHON = 10_000_000, 200_000
QUICK_LENGTHS, QUICK_IN_PYTHON = 20_000, 10_000
SECONDS_PER_CASE = 12.0
ROUNDS = (5, 20)
EPOCH_ROUNDS = (2, 2)
GOAL = 20.0
SHOWN = ("median ms", "p20 - p80", "speedup")
COLUMNS = [
    "provider", "case", "not_measured", "lengths", "lengths_timed", "median_ms", "p20_ms", "p80_ms",
    "runs", "ns_per_length", "times_as_fast_as_baseline", "rows", "least_rows", "fill", "goals",
    "baseline",
]  # fmt: skip

Lengths = NDArray[np.int64]


class Case(NamedTuple):
    """Lengths are log-normal, cut at the capacity. window: as 64 batches of some rows."""

    strategy: Strategy
    mean_of_log: float
    capacity: int
    window: int

    @property
    def name(self) -> str:
        tokens = round(float(self.lengths(100_000).mean()), -1)
        return f"{self.strategy} capacity={self.capacity} mean={tokens:.0f} window={self.window}"

    def lengths(self, number: int) -> Lengths:
        random = np.random.default_rng(0)
        lengths = random.lognormal(self.mean_of_log, 0.8, number).astype(np.int64)
        return lengths.clip(1, self.capacity)


CASES = (
    Case("first_fit_decreasing", 5.0, 2048, 5_000),
    Case("first_fit_decreasing", 5.0, 2048, 100_000),
    Case("first_fit_decreasing", 6.6, 8192, 5_000),
    Case("length_ordered", 5.0, 2048, 5_000),
)


# -- in Python ------------------------------------------------------------------------------------


def first_fit_decreasing(lengths: list[int], capacity: int, window: int) -> list[int]:
    """With a tree of the room left, as csrc/host has it: the first row that fits in O(log)."""
    rows, num_rows = [0] * len(lengths), 0
    for ids in windows(lengths, window):
        leaves = 1 << (len(ids) - 1).bit_length()
        most, opened = [capacity] * (2 * leaves), 0
        for sample in ids:
            length, node = lengths[sample], 1
            while node < leaves:
                node *= 2
                if most[node] < length:
                    node += 1
            row = node - leaves
            rows[sample] = num_rows + row
            if row >= opened:
                opened = row + 1
            most[node] -= length
            while node > 1:
                node //= 2
                left, right = most[2 * node], most[2 * node + 1]
                most[node] = left if left > right else right
        num_rows += opened
    return rows


def length_ordered(lengths: list[int], capacity: int, window: int) -> list[int]:
    rows, row = [0] * len(lengths), -1
    for ids in windows(lengths, window):
        left = 0
        for sample in ids:
            if lengths[sample] > left:
                row, left = row + 1, capacity
            left -= lengths[sample]
            rows[sample] = row
    return rows


def windows(lengths: list[int], window: int) -> Iterator[list[int]]:
    for first in range(0, len(lengths), window):
        ids = range(first, min(first + window, len(lengths)))
        yield sorted(ids, key=lengths.__getitem__, reverse=True)  # stable in reverse, too


IN_PYTHON = {"first_fit_decreasing": first_fit_decreasing, "length_ordered": length_ordered}


# -- measured -------------------------------------------------------------------------------------


def least_rows(lengths: Lengths, capacity: int) -> int:
    """No two samples over half of the capacity share a row."""
    return max(-(-int(lengths.sum()) // capacity), int((2 * lengths > capacity).sum()))


def filled(lengths: Lengths, capacity: int, num_rows: int) -> Row:
    fill = float(lengths.sum()) / (num_rows * capacity)
    return {"rows": num_rows, "least_rows": least_rows(lengths, capacity), "fill": fill}


def timed_row(spread: measure.Spread, number: int, timed: int) -> Row:
    scale = number / timed
    return {
        "lengths": number,
        "lengths_timed": timed,
        "median_ms": spread.median * scale * 1e3,
        "p20_ms": spread.p20 * scale * 1e3,
        "p80_ms": spread.p80 * scale * 1e3,
        "runs": spread.runs,
        "ns_per_length": spread.median / timed * 1e9,
    }


def packed(case: Case, quick: bool, seconds: float) -> list[Row]:
    number, in_python = sizes(quick)
    lengths = case.lengths(number)
    few, few_listed = lengths[:in_python], lengths[:in_python].tolist()
    ours, python = PACKERS[case.strategy], IN_PYTHON[case.strategy]
    same = ours(few, case.capacity, case.window).tolist() == python(few_listed, *case[2:])
    clock = measure.Clock(torch.device("cpu"))
    calls: dict[str, Callable[[], float]] = {
        "ours": partial(clock.seconds, lambda: ours(lengths, case.capacity, case.window)),
        "python": partial(clock.seconds, lambda: python(few_listed, *case[2:])),
    }
    spreads = measure.interleaved(calls, seconds, QUICK_ROUNDS if quick else ROUNDS)
    num_rows = int(ours(lengths, case.capacity, case.window).max()) + 1
    one, other = (
        {"provider": name, "case": case.name, "baseline": "python"}
        | timed_row(spreads[name], number, timed)
        for name, timed in (("ours", number), ("python", in_python))
    )
    times = other["median_ms"] / one["median_ms"]
    one["times_as_fast_as_baseline"], other["times_as_fast_as_baseline"] = times, 1.0
    mark = "reached" if times >= GOAL else "MISSED"
    one["goals"] = f"{times:.0f} x as fast as python (goal {GOAL:.0f} x): {mark}"
    if not same:
        one["not_measured"] = "refused: its rows are not those of the Python version"
    return [one | filled(lengths, case.capacity, num_rows), other]


def arranged(case: Case, quick: bool) -> list[Row]:
    """Order: another epoch at each call, since the last ones are kept."""
    number, _ = sizes(quick)
    lengths = case.lengths(number)
    order = Order(lengths, 0, global_batch_tokens=8 * case.capacity, row_capacity=case.capacity)
    epochs = iter(range(100))
    clock = measure.Clock(torch.device("cpu"))

    def epoch() -> float:
        at = next(epochs)
        return clock.seconds(lambda: order.steps_in_epoch(at))

    spreads = measure.interleaved({"ours": epoch}, 0.0, EPOCH_ROUNDS)
    num_rows = sum(len(order.rows(step)) for step in range(order.steps_in_epoch(0)))
    name = f"an epoch of Order, {case.strategy} capacity={case.capacity} 8 rows a step"
    row = {"provider": "ours", "case": name} | timed_row(spreads["ours"], number, number)
    return [row | filled(lengths, case.capacity, num_rows)]


def sizes(quick: bool) -> tuple[int, int]:
    return (QUICK_LENGTHS, QUICK_IN_PYTHON) if quick else (NUM_LENGTHS, NUM_IN_PYTHON)


def main(argv: Sequence[str] | None = None) -> int:
    """1 if our rows are not those of the Python version."""
    args = parse(NAME, argv)
    everywhere: dict[str, Any] = conditions(torch.device("cpu"))
    path = results_file(args, NAME)
    seconds = args.seconds or SECONDS_PER_CASE
    parts = {case.name: partial(packed, case, args.quick, seconds) for case in CASES}
    parts["an epoch of Order"] = partial(arranged, CASES[0], args.quick)
    wrong = False
    for name, part in parts.items():
        if args.only not in name:
            continue
        rows = [row | everywhere for row in part()]
        wrong |= any(row.get("not_measured") for row in rows)
        print_table(rows[0]["case"], rows, SHOWN)
        print(f"  {rows[0]['rows']} rows, at least {rows[0]['least_rows']}; ", end="")
        print(f"fill {rows[0]['fill']:.4f}\n", flush=True)
        if path:
            write_rows(path, [*COLUMNS, *everywhere], rows)
    if path:
        print(path)
    return int(wrong)


if __name__ == "__main__":
    sys.exit(main())
