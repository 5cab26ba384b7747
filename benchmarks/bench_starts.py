#!/usr/bin/env python3
"""How long a user waits for a verb on the quickstart's config: beside the bare imports that it
cannot do without, and beside another checkout (`--before DIR`). Every start is a new process; the
providers take turns, and a round that comes first, to fill caches of files, is thrown away.

`predict` and `evaluate` ask a model that this checkout trained for 20 steps. `first step of 2
ranks` goes from the command to the log line of step 1.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from harness import conditions
from processes import ROOT, Finished, run
from rows import RESULTS, Row, write_rows

NAME = "starts"
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


def calls(
    place: Path, checkouts: Mapping[str, Path]
) -> dict[str, dict[str, Callable[[], Finished]]]:
    """By case and provider: one start, measured."""

    def start(verb: Sequence[str], checkout: Path) -> Callable[[], Finished]:
        words = ["-m", "bigft", *(word.format(place=place) for word in verb)]
        return lambda: run(words, place, checkout=checkout)

    def first_step(checkout: Path) -> Callable[[], Finished]:
        def call() -> Finished:
            with tempfile.TemporaryDirectory(dir=place) as name:
                words = [word.format(place=place, name=Path(name).name) for word in TRAIN]
                words += ["train.max_steps=1", "train.save_strategy=no", "--nproc", "2"]
                words += ["train.load_best_model_at_end=false", "train.save_total_limit=null"]
                return run(["-m", "bigft", *words], place, checkout=checkout, until="step 1/")

        return call

    bare = {"imports": lambda: run(["-c", IMPORTS], place)}
    table: dict[str, Any] = {}
    for case, verb in VERBS.items():
        table[case] = bare | {name: start(verb, path) for name, path in checkouts.items()}
    table[FIRST_STEP] = bare | {name: first_step(path) for name, path in checkouts.items()}
    return table


def seconds(start: Finished) -> float:
    """What the user waited."""
    return start.wall_seconds if start.seconds_until is None else start.seconds_until


def rows_of(case: str, measured: Mapping[str, list[Finished]]) -> list[Row]:
    rows = []
    for name, starts in measured.items():
        walls = sorted(map(seconds, starts))
        low, *_, high = statistics.quantiles(walls, n=5) if len(walls) > 1 else walls * 2
        row: Row = {
            "provider": name,
            "case": case,
            "median_ms": statistics.median(walls) * 1e3,
            "p20_ms": low * 1e3,
            "p80_ms": high * 1e3,
            "runs": len(walls),
            "cpu_seconds": statistics.median(start.cpu_seconds for start in starts),
        }
        # Pairs of one round: what the machine does meanwhile hits both.
        for other in ("imports", "before"):
            if other in measured and name != other:
                pairs = zip(starts, measured[other], strict=True)
                ratios = [seconds(own) / seconds(theirs) for own, theirs in pairs]
                row[f"ratio_to_{other}"] = statistics.median(ratios)
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
    checkouts |= {"bigft": ROOT}
    args.rounds = 1 if args.quick else args.rounds
    everywhere = conditions(torch.device("cpu"))
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        words = [word.format(place=place, name="run") for word in TRAIN]
        run(["-m", "bigft", *words, "train.max_steps=20"], place)
        for case, providers in calls(place, checkouts).items():
            if args.only not in case:
                continue
            measured: dict[str, list[Finished]] = {name: [] for name in providers}
            for number in range(args.rounds + 1):
                for name, call in providers.items():
                    start = call()
                    if number > 0:
                        measured[name].append(start)
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
