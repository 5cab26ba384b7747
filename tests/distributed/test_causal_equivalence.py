"""Language models: ranks, micro-batches, ZeRO stages and packing do not change a run.

The short form; benchmarks/equivalence_table.py runs every combination for docs/equivalence.md.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from distributed.causal_runs import (
    LAYOUTS,
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
from distributed.ranks import run_ranks
from distributed.scenarios import train, train_averaging_per_micro_batch

from bigft.config.sections import RunConfig
from bigft.training.inputs import prepare

pytestmark = pytest.mark.distributed

# By layout: stage, whether rows are packed, methods. Every layout and stage, padded and packed.
CELLS = {
    "1x8": [(0, False, "full lora"), (0, True, "full lora")],
    "1x2x4": [(2, False, "full lora"), (1, True, "full lora")],
    "2x2x2": [(1, False, "full"), (3, True, "full lora")],
    "4x2": [(3, False, "lora"), (2, True, "full")],
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BIGFT_CACHE", str(tmp_path / "cache"))
    save_model(tmp_path / "model")
    write_samples(tmp_path / "train.jsonl")
    return tmp_path


def test_layout_stage_and_packing_train_the_same(folder: Path) -> None:
    runs: dict[Cell, Seen] = {}
    for layout, (ranks, _) in LAYOUTS.items():
        cells = [
            Cell(layout, stage, packing, method)
            for stage, packing, methods in CELLS[layout]
            for method in methods.split()
        ]
        configs = [config_of(cell, folder) for cell in cells]
        answers = run_ranks(train, ranks, configs)[0]
        for cell, config, (events, _) in zip(cells, configs, answers, strict=True):
            runs[cell] = seen(config, events)
    for cell, run in runs.items():
        reference = runs[cell.reference]
        assert len(set(run.losses)) == 10
        assert loss_difference(run, reference) <= 1e-5, cell
        assert weight_difference(run, reference) <= 1e-5, cell
    full, lora = (runs[Cell("1x8", 0, False, method)].losses for method in ("full", "lora"))
    assert full[0] == pytest.approx(lora[0], rel=1e-6)  # B of LoRA is zero at first
    assert full[-1] != pytest.approx(lora[-1], rel=1e-3)


def test_the_runs_are_what_they_claim(folder: Path) -> None:
    run = prepare(RunConfig.model_validate(config_of(Cell("4x2", 0, True, "full"), folder)))
    train_split = run.splits["train"]
    assert train_split.num_targets.tolist() == TARGETS
    assert train_split.num_targets.sum() < 0.3 * train_split.lengths.sum()
    order = run.order({"global_batch_size": 8})
    num_rows = [len(order.rows(step)) for step in range(10)]
    assert max(num_rows) > 4  # some step has two rows for a rank of four
    assert min(num_rows) < 4  # and some has none for one of them


@pytest.mark.parametrize(
    ("mistake", "layout", "packing"),
    [
        (train_averaging_per_micro_batch, "1x2x4", False),
        (train_with_leaking_packs, "1x8", True),
    ],
)
def test_a_mistake_would_be_noticed(
    mistake: Callable[..., Any], layout: str, packing: bool, folder: Path
) -> None:
    wrong = config_of(Cell(layout, 0, packing, "full"), folder)
    reference = config_of(Cell("1x8", 0, False, "full"), folder)
    ((expected, _),) = run_ranks(train, 1, [reference])[0]
    ((events, _),) = run_ranks(mistake, 1, [wrong])[0]
    assert loss_difference(seen(wrong, events), seen(reference, expected)) > 1e-3
