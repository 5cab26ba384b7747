#!/usr/bin/env python3
"""NER training with the fused and the stock token head: losses, and the head's share of a step.

Two runs of `bigft train` in fp32 without dropout, equal but for `model.fused_head`; then both heads
alone, forward and backward, in turn, on hidden states of the sizes of the run's batches. One CSV
row per head.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

from bench_train_ner import WNUT17
from beside_trainer import PACKAGES
from processes import ROOT, cpu_model, run
from rows import RESULTS, Row, versions, write_rows

HEADS = {"stock": False, "fused": True}
LARGEST_DIFFERENCE = 1e-5  # of the losses, relative
COLUMNS = (
    "head", "steps", "threads", "dropout", "step_ms", "head_ms_without_dropout",
    "share_without_dropout", "head_ms_with_dropout", "share_with_dropout",
    "largest_relative_loss_difference", "first_loss", "last_loss", "cpu", *PACKAGES, "bigft",
    "date",
)  # fmt: skip
DROPOUT = 0.1  # of the heads that are timed with one
REPEATS = 5


def config(args: argparse.Namespace, folder: Path, fused: bool) -> dict[str, Any]:
    files = {f"{split}_file": str(args.data / name) for split, name in WNUT17.items()}
    return {
        "task": "token-classification",
        "model": {
            "model_name_or_path": str(args.model),
            "dropout": 0.0,
            "fused_head": fused,
        },
        "data": files,
        "optim": {"learning_rate": 1.5e-4},
        "parallel": {"zero_stage": 0},
        "train": {
            "output_dir": str(folder / f"run-{fused}"),
            "max_steps": args.max_steps,
            "per_device_train_batch_size": 16,
            "logging_steps": 1,
            "eval_strategy": "no",
            "save_strategy": "no",
        },
    }


def train(args: argparse.Namespace, folder: Path, fused: bool) -> tuple[list[float], float]:
    """The losses of the steps, and the median milliseconds of one."""
    path = folder / f"config-{fused}.yaml"
    path.write_text(json.dumps(config(args, folder, fused)), encoding="utf-8")  # JSON is YAML
    run(["-m", "bigft", "train", str(path)], folder, args.threads)
    lines = (folder / f"run-{fused}" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    steps = [event for event in map(json.loads, lines) if event["event"] == "log"]
    times = [event["time"] for event in steps]
    seconds = [end - start for start, end in pairwise(times)]
    return [event["loss"] for event in steps], 1e3 * statistics.median(seconds)


def head_milliseconds(args: argparse.Namespace, folder: Path) -> dict[tuple[str, float], float]:
    """Of a step, by head and dropout: median over repeats of the mean over the run's batches."""
    import torch
    import torch.nn.functional as F

    from bigft import ops
    from bigft.config.load import load_config
    from bigft.training.batch import global_batch
    from bigft.training.inputs import prepare

    os.environ["BIGFT_CACHE"] = str(folder / "cache")  # the runs prepared their data there
    torch.set_num_threads(args.threads)
    run_config = load_config(str(folder / "config-True.yaml")).config
    prepared = prepare(run_config)
    order, split = prepared.order(global_batch(run_config, 1)), prepared.splits["train"]
    num_labels, hidden_size = len(prepared.task.labels), args.hidden_size
    batches = []
    for step in range(args.max_steps):
        rows = [split.row(int(row)) for row in order.global_batch(step)]
        labels_N = prepared.task.collate(rows).labels.flatten()
        batches.append((torch.randn(len(labels_N), hidden_size, requires_grad=True), labels_N))
    weight_CH = (torch.randn(num_labels, hidden_size) * 0.02).requires_grad_()
    bias_C = torch.zeros(num_labels, requires_grad=True)

    def stock(hidden_NH: torch.Tensor, labels_N: torch.Tensor, dropout: float) -> torch.Tensor:
        logits_NC = F.linear(F.dropout(hidden_NH, dropout), weight_CH, bias_C)
        logits_NC.detach().argmax(dim=-1)  # the stock head predicts too
        return F.cross_entropy(logits_NC, labels_N, reduction="sum")

    def fused(hidden_NH: torch.Tensor, labels_N: torch.Tensor, dropout: float) -> torch.Tensor:
        seed = torch.randint(2**63 - 1, (2,))
        loss = ops.token_classification_head(
            hidden_NH, weight_CH, bias_C, labels_N, dropout_p=dropout, seed=seed
        ).loss
        assert loss is not None
        return loss

    times: dict[tuple[str, float], list[float]] = {}
    for _ in range(REPEATS + 1):
        for name, head in (("stock", stock), ("fused", fused)):
            for dropout in (0.0, DROPOUT):
                started = time.perf_counter()
                for hidden_NH, labels_N in batches:
                    head(hidden_NH, labels_N, dropout).backward()
                    hidden_NH.grad = weight_CH.grad = bias_C.grad = None
                seconds = (time.perf_counter() - started) / len(batches)
                times.setdefault((name, dropout), []).append(1e3 * seconds)
    return {key: statistics.median(values[1:]) for key, values in times.items()}  # first: warm-up


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the WNUT-17 files")
    parser.add_argument("--model", type=Path, default=ROOT / "models/all-MiniLM-L6-v2")
    parser.add_argument("--hidden-size", type=int, default=384, help="of the model")
    parser.add_argument("--max-steps", type=int, default=60)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--results", type=Path, default=RESULTS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        trained = {name: train(args, folder, fused) for name, fused in HEADS.items()}
        alone = head_milliseconds(args, folder)
    losses = [trained[name][0] for name in HEADS]
    difference = max(abs(a - b) / abs(a) for a, b in zip(*losses, strict=True))
    everywhere = {"threads": args.threads, "cpu": cpu_model(), **versions(PACKAGES)}
    path = args.results / f"train_head_cpu_{everywhere['date']}.csv"
    for name, (loss, step_ms) in trained.items():
        row: Row = {
            "head": name, "steps": len(loss), "dropout": DROPOUT, "step_ms": round(step_ms, 2),
            "largest_relative_loss_difference": f"{difference:.2e}",
            "first_loss": loss[0], "last_loss": loss[-1], **everywhere,
        }  # fmt: skip
        for dropout, what in ((0.0, "without_dropout"), (DROPOUT, "with_dropout")):
            row[f"head_ms_{what}"] = round(alone[name, dropout], 3)
            row[f"share_{what}"] = round(alone[name, dropout] / step_ms, 4)
        write_rows(path, COLUMNS, [row])
        print({key: row[key] for key in COLUMNS[:12]})
    print(f"rows: {path}")
    if difference > LARGEST_DIFFERENCE:
        print(f"losses differ by {difference:.1e}, more than {LARGEST_DIFFERENCE:.0e}")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
