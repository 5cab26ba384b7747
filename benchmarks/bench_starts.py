#!/usr/bin/env python3
"""How long a user waits for a verb on the quickstart's config: beside the bare imports that it
cannot do without, and beside another checkout (`--before DIR`). Every start is a new process; the
providers take turns, and a round that comes first, to fill caches of files, is thrown away.

`predict` and `evaluate` ask a model that this checkout trained for 20 steps. `first step of 2
ranks` goes from the command to the log line of step 1.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from harness import RESULTS, Row, conditions, write_rows

NAME = "starts"
CHECKOUT = Path(__file__).resolve().parents[1]
QUICKSTART = "configs/quickstart.yaml"
# What the quickstart's verbs need whoever calls them: torch, a tokenizer's class, a BERT's.
IMPORTS = """
import torch
from transformers import PreTrainedTokenizerFast
from transformers.models.bert.modeling_bert import BertForTokenClassification
"""
COLUMNS = [
    "provider", "case", "not_measured", "median_ms", "p20_ms", "p80_ms", "runs", "cpu_seconds",
    "ratio_to_imports", "ratio_to_before",
]  # fmt: skip
VERBS: dict[str, Sequence[str]] = {
    "check": ["check", QUICKSTART, "train.output_dir={place}/none"],
    "predict": ["predict", "{place}/run", "--text", "Ada Lovelace met Charles Babbage in London."],
    "evaluate": ["evaluate", "{place}/run"],
}
FIRST_STEP = "first step of 2 ranks"
TRAIN = ["train", QUICKSTART, "train.logging_steps=1", "train.output_dir={place}/{name}"]


def seconds_of(words: Sequence[str], checkout: Path, until: str = "") -> tuple[float, float]:
    """Wall seconds to the end of the process, or to its first line that begins with `until`; and
    CPU seconds of it and its children, to the end."""
    environ = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONUNBUFFERED": "1"}
    before, began, took = cpu_seconds(), time.perf_counter(), None
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=checkout,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if until and took is None and line.startswith(until):
            took = time.perf_counter() - began
    if process.wait() != 0 or (until and took is None):
        raise RuntimeError(f"{words} in {checkout}:\n{''.join(lines)}")
    return took or time.perf_counter() - began, cpu_seconds() - before


def cpu_seconds() -> float:
    times = os.times()
    return times.children_user + times.children_system


def calls(
    place: Path, checkouts: Mapping[str, Path]
) -> dict[str, dict[str, Callable[[], tuple[float, float]]]]:
    """By case and provider: one start, measured."""

    def start(verb: Sequence[str], checkout: Path, **about: Any) -> Callable[[], Any]:
        words = ["-m", "bigft", *(word.format(place=place, **about) for word in verb)]
        return lambda: seconds_of(words, checkout)

    def first_step(checkout: Path) -> Callable[[], Any]:
        def call() -> tuple[float, float]:
            with tempfile.TemporaryDirectory(dir=place) as name:
                words = [word.format(place=place, name=Path(name).name) for word in TRAIN]
                words += ["train.max_steps=1", "train.save_strategy=no", "--nproc", "2"]
                words += ["train.load_best_model_at_end=false", "train.save_total_limit=null"]
                return seconds_of(["-m", "bigft", *words], checkout, until="step 1/")

        return call

    bare = {"imports": lambda: seconds_of(["-c", IMPORTS], CHECKOUT)}
    table: dict[str, Any] = {}
    for case, verb in VERBS.items():
        table[case] = bare | {name: start(verb, path) for name, path in checkouts.items()}
    table[FIRST_STEP] = bare | {name: first_step(path) for name, path in checkouts.items()}
    return table


def rows_of(case: str, measured: Mapping[str, list[tuple[float, float]]]) -> list[Row]:
    rows = []
    medians = {name: statistics.median(wall for wall, _ in all_) for name, all_ in measured.items()}
    for name, times in measured.items():
        walls = sorted(wall for wall, _ in times)
        low, *_, high = statistics.quantiles(walls, n=5) if len(walls) > 1 else walls * 2
        row: Row = {
            "provider": name,
            "case": case,
            "median_ms": medians[name] * 1e3,
            "p20_ms": low * 1e3,
            "p80_ms": high * 1e3,
            "runs": len(walls),
            "cpu_seconds": statistics.median(cpu for _, cpu in times),
        }
        # Pairs of one round: what the machine does meanwhile hits both.
        for other in ("imports", "before"):
            if other in measured and name != other:
                pairs = zip(times, measured[other], strict=True)
                ratio = statistics.median(own / theirs for (own, _), (theirs, _) in pairs)
                row[f"ratio_to_{other}"] = ratio
        rows.append(row)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--before", type=Path, metavar="DIR", help="a checkout to compare with")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", metavar="TEXT", help="cases whose name contains it")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the CSV")
    parser.add_argument("--device", choices=["cpu"], default="cpu")
    parser.add_argument("--quick", action="store_true", help="one round, to see that all runs")
    args = parser.parse_args(argv)
    checkouts = {"before": args.before.resolve()} if args.before else {}
    checkouts |= {"bigft": CHECKOUT}
    args.rounds = 1 if args.quick else args.rounds
    everywhere = conditions(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        os.environ["BIGFT_CACHE"] = str(place / "cache")
        words = [word.format(place=place, name="run") for word in TRAIN]
        seconds_of(["-m", "bigft", *words, "train.max_steps=20"], CHECKOUT)
        for case, providers in calls(place, checkouts).items():
            if args.only not in case:
                continue
            measured: dict[str, list[tuple[float, float]]] = {name: [] for name in providers}
            for number in range(args.rounds + 1):
                for name, call in providers.items():
                    times = call()
                    if number > 0:
                        measured[name].append(times)
            rows = [row | everywhere for row in rows_of(case, measured)]
            for row in rows:
                ratios = [f"{row[key]:.2f} x {key[9:]}" for key in row if key.startswith("ratio_")]
                print(
                    f"{case:22} {row['provider']:8} {row['median_ms'] / 1e3:6.2f} s, CPU "
                    f"{row['cpu_seconds']:6.2f} s  {', '.join(ratios)}",
                    flush=True,
                )
            path = args.out / f"{NAME}_cpu_{everywhere['date']}.csv"
            if not args.quick:
                write_rows(path, [*COLUMNS, *everywhere], rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
