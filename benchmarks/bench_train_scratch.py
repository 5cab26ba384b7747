#!/usr/bin/env python3
"""Small models from scratch: bigft's losses beside those of transformers' Trainer.

For each seed one random model is saved, and both train it on the same data with the same batch and
learning rate; order and dropout differ. The runs take turns. One CSV row per run, and a table of
the means and the spread over the seeds. How to read it: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from bench_train_sft import run_bigft, run_peer, work, write_samples
from hf_trainers import TRAINER, Line
from processes import cpu_model
from rows import RESULTS, Row, versions, write_rows

WINDOWS = 6  # of a run's steps: one loss each, the mean per target
EVERY = 20  # of so many English sentences of the translations one is for evaluation
PACKAGES = ("torch", "transformers", "deepspeed")
LOSSES = (*(f"loss_{number}" for number in range(1, WINDOWS + 1)), "eval_loss")
COLUMNS = (
    "data", "provider", "seed", *LOSSES, "steps", "targets", "wall_seconds", "max_steps", "batch",
    "lr", "seq", "parameters", "cpu", "threads", *PACKAGES, "bigft", "date",
)  # fmt: skip


class Subject(NamedTuple):
    """samples: (training, evaluation) from the folder of the data."""

    task: Row
    auto_class: str
    model_type: str
    shape: Row
    vocabulary: int
    seq: int
    batch: int
    max_steps: int
    samples: Callable[[Path], tuple[list[Row], list[Row]]]


def gsm8k(folder: Path) -> tuple[list[Row], list[Row]]:
    def read(name: str) -> Iterator[Row]:
        for line in (folder / name).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            yield {"prompt": f"{row['question']}\n\nAnswer:", "completion": f" {row['answer']}"}

    return list(read("train.first2500.jsonl")), list(read("test.first500.jsonl"))


def tatoeba(folder: Path) -> tuple[list[Row], list[Row]]:
    """Split by the English sentence: one has several translations."""
    numbers: dict[str, int] = {}
    splits: tuple[list[Row], list[Row]] = ([], [])
    for line in (folder / "cmn.every3rd.txt").read_text(encoding="utf-8").splitlines():
        english, chinese, _ = line.split("\t")
        number = numbers.setdefault(english, len(numbers))
        splits[number % EVERY == 0].append({"source": english, "target": chinese})
    return splits


SUBJECTS = {
    "gsm8k": Subject(
        task={"name": "causal-lm"},
        auto_class="AutoModelForCausalLM",
        model_type="llama",
        shape={"vocab_size": 4000, "hidden_size": 192, "intermediate_size": 512,
               "num_hidden_layers": 4, "num_attention_heads": 6, "num_key_value_heads": 2,
               "max_position_embeddings": 512, "bos_token_id": None},
        vocabulary=4000, seq=512, batch=16, max_steps=240, samples=gsm8k,
    ),
    "tatoeba_en_zh": Subject(
        task={"name": "seq2seq", "predict_with_generate": False},
        auto_class="AutoModelForSeq2SeqLM",
        model_type="t5",
        shape={"vocab_size": 6000, "d_model": 192, "d_kv": 32, "d_ff": 512, "num_layers": 3,
               "num_heads": 6, "dropout_rate": 0.1, "decoder_start_token_id": 0},
        vocabulary=6000, seq=128, batch=32, max_steps=300, samples=tatoeba,
    ),
}  # fmt: skip


def window_losses(lines: Sequence[Line]) -> list[float]:
    """The mean per target of each sixth of the run."""
    bounds = [round(len(lines) * number / WINDOWS) for number in range(WINDOWS + 1)]
    return [
        sum(line.loss * line.targets for line in part) / sum(line.targets for line in part)
        for part in (lines[a:b] for a, b in pairwise(bounds))
    ]


def run_both(job: Row) -> Iterator[Row]:
    """One run of each side on the job's model."""
    for provider, runner in ((TRAINER, run_peer), ("bigft", run_bigft)):
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            process, lines, _ = runner({**job, "provider": provider}, folder)
            model = str(folder / "run" / "model")
            _, scores = work({**job, "do": "evaluate", "model": model}, folder)
        losses = [*window_losses(lines), scores["eval_loss"]]
        yield {
            "provider": provider,
            **dict(zip(LOSSES, losses, strict=True)),
            "steps": len(lines),
            "targets": sum(line.targets for line in lines),
            "wall_seconds": process.wall_seconds,
        }


def table(rows: Sequence[Row]) -> str:
    """Mean ± standard deviation over the seeds. within: the means differ by no more than twice the
    larger of both deviations."""
    lines = []
    for data in dict.fromkeys(row["data"] for row in rows):
        lines.append(f"{data:14} {'transformers':>18} {'bigft':>18} {'difference':>11}  within")
        for name in LOSSES:
            theirs, ours = (
                [row[name] for row in rows if (row["data"], row["provider"]) == (data, provider)]
                for provider in (TRAINER, "bigft")
            )
            means = [statistics.mean(values) for values in (theirs, ours)]
            spreads = [statistics.stdev(v) if len(v) > 1 else math.nan for v in (theirs, ours)]
            difference = means[1] - means[0]
            cells = [f"{m:.4f} ± {s:.4f}" for m, s in zip(means, spreads, strict=True)]
            within = "yes" if abs(difference) <= 2 * max(spreads) else "no"
            lines.append(f"{name:14} {cells[0]:>18} {cells[1]:>18} {difference:+11.4f}  {within}")
        lines.append("")
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="the folder of both data sets")
    parser.add_argument("--subjects", nargs="+", choices=list(SUBJECTS), default=list(SUBJECTS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--max-steps", type=int, help="for a quick look; else 240 and 300")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=2, help="OMP_NUM_THREADS of every run")
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser.parse_args()


def prepared(args: argparse.Namespace, name: str, seed: int, folder: Path) -> Row:
    """What both runs are told. The model, its tokenizer and the data lie in the folder."""
    subject = SUBJECTS[name]
    job: dict[str, Any] = {
        **subject._asdict(), "data": name, "seed": seed, "lr": args.lr, "threads": args.threads,
        "max_steps": args.max_steps or subject.max_steps, "epochs": 1.0, "rows": 0, "bf16": False,
        "attn_implementation": None, "device": "cpu", "model": str(folder / "model"),
        "train_file": str(folder / "train.jsonl"), "validation_file": str(folder / "valid.jsonl"),
    }  # fmt: skip
    del job["samples"]
    training, evaluation = subject.samples(args.data / name)
    write_samples(job["train_file"], training)
    write_samples(job["validation_file"], evaluation)
    return job | work({**job, "do": "model"}, folder)[1]


def main() -> None:
    args = parse()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    everywhere = {"cpu": cpu_model(), **versions(PACKAGES)}
    output = args.out / f"train_scratch_cpu_{everywhere['date']}.csv"
    rows: list[Row] = []
    for name in args.subjects:
        for seed in args.seeds:
            with tempfile.TemporaryDirectory() as folder:
                job = prepared(args, name, seed, Path(folder))
                for row in run_both(job):
                    rows.append({**job, **everywhere, **row})
                    write_rows(output, COLUMNS, [{name: rows[-1][name] for name in COLUMNS}])
                    losses = f"{row['loss_1']:.3f} to {row[f'loss_{WINDOWS}']:.3f}"
                    print(f"{name} {row['provider']} seed {seed}: {losses}", flush=True)
    print(f"\n{output}\n{table(rows)}")


if __name__ == "__main__":
    main()
