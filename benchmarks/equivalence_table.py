#!/usr/bin/env python3
"""Writes docs/equivalence.md: how far ranks, micro-batches, ZeRO stages and packing move a run.

Every cell is a run of `task: causal-lm`, from a config to `model/`; what runs is in
tests/distributed/causal_runs.py. Exit code 1 if a loss differs by more than the bound, or if a
mistake made on purpose does not show.
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from distributed.causal_runs import (  # noqa: E402
    CAPACITY,
    LAYOUTS,
    METHODS,
    STAGES,
    TARGETS,
    Cell,
    Seen,
    config_of,
    loss_difference,
    save_model,
    seen,
    train_with_leaking_packs,
    weight_difference,
    write_samples,
)
from distributed.ranks import run_ranks  # noqa: E402
from distributed.scenarios import train, train_averaging_per_micro_batch  # noqa: E402

BOUND = 1e-5  # of the losses
MISTAKES: dict[str, tuple[Callable[..., Any], Cell]] = {
    "a mean per micro-batch in the place of the sum over the step's targets (1x2x4)": (
        train_averaging_per_micro_batch,
        Cell("1x2x4", 0, False, "full"),
    ),
    "packed samples that see those before them in their row (1x8)": (
        train_with_leaking_packs,
        Cell("1x8", 0, True, "full"),
    ),
}
PACKAGES = ("torch", "transformers", "peft", "deepspeed")


def all_cells(layout: str) -> list[Cell]:
    ways = product(METHODS, (False, True), STAGES)
    return [Cell(layout, stage, packing, method) for method, packing, stage in ways]


def run_cells(
    scenario: Callable[..., Any], cells: Sequence[Cell], folder: Path
) -> dict[Cell, Seen]:
    """The runs of one layout's cells, one after the other in one launch."""
    configs = [config_of(cell, folder) for cell in cells]
    ranks, _ = LAYOUTS[cells[0].layout]
    answers = run_ranks(scenario, ranks, configs, timeout=1200.0)[0]
    return {
        cell: seen(config, events)
        for cell, config, (events, _) in zip(cells, configs, answers, strict=True)
    }


def table(values: Mapping[Cell, float]) -> Iterable[str]:
    yield f"| | | | {' | '.join(f'ZeRO-{stage}' for stage in STAGES)} |"
    yield "|---|---|---|" + "---|" * len(STAGES)
    for method, packing, layout in product(METHODS, (False, True), LAYOUTS):
        cells = [Cell(layout, stage, packing, method) for stage in STAGES]
        shown = ["-" if cell == cell.reference else f"{values[cell]:.1e}" for cell in cells]
        rows = "packed" if packing else "padded"
        yield f"| {method} | {rows} | {layout} | {' | '.join(shown)} |"


def document(
    losses: Mapping[Cell, float],
    weights: Mapping[Cell, float],
    mistakes: Mapping[str, float],
    seconds: float,
) -> str:
    names = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    above = [cell for cell, value in losses.items() if not value <= BOUND]
    verdict = (
        f"{len(above)} of {len(losses)} cells are above the bound" if above else "all below it"
    )
    steps = 2 * -(-len(TARGETS) // 8)
    return "\n".join(
        [
            "# Equivalence: the layout does not change a run",
            "",
            "Written by `python benchmarks/equivalence_table.py`; do not edit. "
            "[numerics.md](numerics.md) says why it holds.",
            "",
            "`task: causal-lm`, a Llama of two layers, fp32, no dropout, AdamW (eps 1e-5), "
            f"{steps} steps of 8 samples. {len(TARGETS)} samples with {min(TARGETS)} to "
            f"{max(TARGETS)} targets, most tokens masked; packed rows of {CAPACITY} tokens. "
            "Layouts are ranks x micro-batch x accumulation (1x8: one rank, one micro-batch; 4x2: "
            "four ranks, one of two each); a packed step has fewer rows than samples, so a rank "
            "may have none. Each cell is compared with 1x8, ZeRO-0, padded, of the same method.",
            "",
            f"Seen on {datetime.date.today().isoformat()}, {platform.machine()} CPU, gloo, one "
            f"thread per rank, {names}; {seconds:.0f} s.",
            "",
            "## Losses",
            "",
            "Largest relative difference of a step's loss. "
            f"Bound {BOUND:.0e}; largest {max(losses.values()):.1e}: {verdict}.",
            "",
            *table(losses),
            "",
            "Mistakes made on purpose, in the same way compared (full, ZeRO-0):",
            "",
            *(f"- {mistake}: {value:.1e}" for mistake, value in mistakes.items()),
            "",
            "## Weights",
            "",
            "After the last step: the largest ‖Δ‖/‖w‖ of all trained tensors "
            f"(largest {max(weights.values()):.1e}).",
            "",
            *table(weights),
            "",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "equivalence.md")
    args = parser.parse_args()
    started = time.monotonic()
    runs: dict[Cell, Seen] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["BIGFT_CACHE"] = str(folder / "cache")  # the ranks inherit it
        save_model(folder / "model")
        write_samples(folder / "train.jsonl")
        for layout in LAYOUTS:
            runs |= run_cells(train, all_cells(layout), folder)
            print(f"{layout}: {time.monotonic() - started:.0f} s", flush=True)
        wrong = {
            mistake: run_cells(scenario, [cell], folder)[cell]
            for mistake, (scenario, cell) in MISTAKES.items()
        }
    mistakes = {
        mistake: loss_difference(run, runs[MISTAKES[mistake][1].reference])
        for mistake, run in wrong.items()
    }
    losses = {cell: loss_difference(run, runs[cell.reference]) for cell, run in runs.items()}
    weights = {cell: weight_difference(run, runs[cell.reference]) for cell, run in runs.items()}
    text = document(losses, weights, mistakes, time.monotonic() - started)
    args.out.write_text(text, encoding="utf-8")
    print(text)
    return int(not max(losses.values()) <= BOUND or not min(mistakes.values()) > 100 * BOUND)


if __name__ == "__main__":
    sys.exit(main())
