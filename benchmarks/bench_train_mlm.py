#!/usr/bin/env python3
"""bigft beside transformers' Trainer: masked tokens on full rows, same model, rows and batch.

Every run is a process of its own; the providers take turns. One CSV row per run, and a table at the
end. How to read it: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import processes
from processes import ROOT, cpu_model, device_slug
from rows import RESULTS, versions, write_rows

PACKAGES = ("torch", "transformers", "deepspeed")
SKIPPED = 5  # steps before the clock runs: buffers are allocated, the optimizer's state made
MEASURED = (
    *("tokens_per_second", "train_loss", "targets", "steps", "seconds_to_first_step"),
    *("wall_seconds", "peak_rss_mib", "extra_mib"),
)
CONDITIONS = ("max_steps", "batch", "seq", "lr", "cpu", "threads", *PACKAGES, "bigft", "date")
COLUMNS = ("provider", "seed", *MEASURED, *CONDITIONS)
IGNORED = -100
STATES = 3  # beside the weights: gradients and AdamW's two moments, on both sides
MIB = 1 << 20
BEGINS = "training:"  # a line of both sides, when the model is there and nothing is trained yet

Line = dict[str, Any]


# -- providers: the words of a python process, which writes events as metrics.jsonl holds them ----


def words_of_bigft(args: argparse.Namespace, seed: int, folder: Path) -> list[str]:
    """As a user would: a config, and `bigft train` of it."""
    path = folder / "config.yaml"
    path.write_text(json.dumps(config(args, seed, folder)), encoding="utf-8")  # JSON is YAML
    return ["-m", "bigft", "train", str(path)]


def config(args: argparse.Namespace, seed: int, folder: Path) -> Line:
    return {
        "task": "masked-lm",
        "model": {"model_name_or_path": str(args.model)},
        "data": {
            "train_file": str(args.text),
            "format": "text",
            "sample_by": "paragraph",
            "max_seq_length": args.seq,
        },
        "optim": {"learning_rate": args.lr},
        "parallel": {"zero_stage": 0},
        "train": {
            "output_dir": str(folder / "run"),
            "seed": seed,
            "max_steps": args.max_steps,
            "per_device_train_batch_size": args.batch,
            "logging_steps": 1,  # each step's end is a line of the log
            "eval_strategy": "no",
            "save_strategy": "no",
        },
    }


def words_of_trainer(
    args: argparse.Namespace, seed: int, folder: Path, more: Sequence[str] = ()
) -> list[str]:
    """This file again, in a process that trains with transformers' Trainer."""
    words = [__file__, "--worker", str(folder), "--seeds", str(seed), "--text", str(args.text)]
    for name in ("model", "batch", "seq", "lr", "max_steps"):
        words += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    return [*words, *more]


PROVIDERS: dict[str, Callable[[argparse.Namespace, int, Path], list[str]]] = {
    "trainer": words_of_trainer,
    "trainer-grouped": partial(words_of_trainer, more=["--group-by-length"]),
    "bigft": words_of_bigft,
}


def run(provider: str, args: argparse.Namespace, seed: int, folder: Path) -> Line:
    """What one training came to. Exits with the tail of its output if it fails."""
    words, metrics = PROVIDERS[provider](args, seed, folder), folder / "run" / "metrics.jsonl"
    process = processes.run(words, folder, args.threads, until=BEGINS)
    assert process.rss_mib_then is not None
    (begin,) = [event for event in events(metrics) if event["event"] == "start"]
    steps = [event for event in events(metrics) if event["event"] == "log"]
    timed = steps[SKIPPED:]
    seconds = timed[-1]["time"] - steps[SKIPPED - 1]["time"]
    targets = sum(step["num_targets"] for step in steps)
    states = STATES * 4 * begin["trainable_parameters"] / MIB
    return {
        "tokens_per_second": sum(step["num_tokens"] for step in timed) / seconds,
        "train_loss": sum(step["loss"] * step["num_targets"] for step in steps) / targets,
        "targets": targets,
        "steps": len(steps),
        "seconds_to_first_step": steps[0]["time"] - process.started,
        "wall_seconds": process.wall_seconds,
        "peak_rss_mib": process.peak_rss_mib,
        "extra_mib": process.peak_rss_mib - process.rss_mib_then - states,
    }


def events(metrics: Path) -> Iterator[Line]:
    return map(json.loads, metrics.read_text(encoding="utf-8").splitlines())


# -- the Trainer's process: what transformers' run_mlm.py does, on bigft's rows -------------------


def train_with_trainer(args: argparse.Namespace) -> None:
    """Trains, and writes what bigft writes of a step to run/metrics.jsonl."""
    import torch
    from transformers import (
        AutoModelForMaskedLM,
        AutoTokenizer,
        DataCollatorForLanguageModeling,
        Trainer,
        TrainerCallback,
        TrainingArguments,
        set_seed,
    )

    (seed,) = args.seeds
    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForMaskedLM.from_pretrained(args.model)
    rows = rows_of(args, tokenizer)
    metrics = args.worker / "run" / "metrics.jsonl"
    metrics.parent.mkdir()
    seen = {"num_tokens": 0, "num_targets": 0}

    def tell(**event: Any) -> None:
        with metrics.open("a", encoding="utf-8") as file:
            print(json.dumps({**event, "time": time.time()}), file=file)

    class CountingTrainer(Trainer):
        def training_step(self, model: Any, inputs: Any, *rest: Any) -> torch.Tensor:
            seen["num_tokens"] += int(inputs["attention_mask"].sum())
            seen["num_targets"] += int((inputs["labels"] != IGNORED).sum())
            loss: torch.Tensor = super().training_step(model, inputs, *rest)
            return loss

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
            tell(event="start", trainable_parameters=trainable)
            print(BEGINS, flush=True)
            time.sleep(0.2)  # for the memory to be read

        def on_log(self, *_: Any, logs: Line, **__: Any) -> None:
            if "loss" in logs:  # not the summary at the end
                tell(event="log", loss=logs["loss"], **seen)
                seen.update(num_tokens=0, num_targets=0)

    CountingTrainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(args.worker / "run" / "model"),
            seed=seed,
            max_steps=args.max_steps,
            per_device_train_batch_size=args.batch,
            learning_rate=args.lr,
            lr_scheduler_type="linear",
            use_cpu=not torch.cuda.is_available(),
            train_sampling_strategy="group_by_length" if args.group_by_length else "random",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=rows,
        data_collator=DataCollatorForLanguageModeling(tokenizer),  # 15 %, 80/10/10, as bigft's
        processing_class=tokenizer,
        callbacks=[Clock()],
    ).train()


def rows_of(args: argparse.Namespace, tokenizer: Any) -> list[Line]:
    """Those that bigft trains on, in no cache."""
    from bigft.config.sections import RunConfig
    from bigft.data.records import Row
    from bigft.models.limits import Limit
    from bigft.tasks.masked_lm import MaskedLM
    from bigft.tasks.protocol import Setting

    settings = RunConfig.model_validate(config(args, 0, Path("unused")))
    task = MaskedLM(Setting(settings, tokenizer, limit=Limit(args.seq, "data.max_seq_length")))
    encoded = task.encode_all(list(task.read(settings).splits["train"]))
    found = [each for rows in encoded for each in rows if isinstance(each, Row)]
    ids = [row.columns["input_ids"] for row in found]
    special = {*tokenizer.all_special_ids}
    return [
        {"input_ids": ids_T, "special_tokens_mask": [int(token in special) for token in ids_T]}
        for ids_T in ids
    ]


# -- the table, and the command line --------------------------------------------------------------


def table(rows: Sequence[Line]) -> str:
    """Medians over the seeds, and how many times as fast as the faster Trainer."""
    groups: dict[str, list[Line]] = {}
    for row in rows:
        groups.setdefault(row["provider"], []).append(row)

    def median(provider: str, column: str) -> float:
        return statistics.median(row[column] for row in groups[provider])

    trainers = [median(name, "tokens_per_second") for name in groups if name.startswith("trainer")]
    lines = [
        f"{'provider':15} {'tokens/s':>8} {'ratio':>6} {'extra MiB':>9} {'peak MiB':>8} "
        f"{'first step s':>12} {'loss':>7}"
    ]
    for provider in groups:
        speed = median(provider, "tokens_per_second")
        ratio = f"{speed / max(trainers):6.2f}" if trainers else f"{'-':>6}"
        lines.append(
            f"{provider:15} {speed:8.0f} {ratio} {median(provider, 'extra_mib'):9.0f} "
            f"{median(provider, 'peak_rss_mib'):8.0f} "
            f"{median(provider, 'seconds_to_first_step'):12.1f} "
            f"{median(provider, 'train_loss'):7.4f}"
        )
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--text", type=Path, required=True, help="a text, paragraphs apart")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "all-MiniLM-L6-v2")
    parser.add_argument("--max-steps", type=int, default=40)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seq", type=int, default=128, help="tokens of a row")
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument("--threads", type=int, default=2, help="OMP_NUM_THREADS of every run")
    parser.add_argument("--providers", nargs="+", choices=list(PROVIDERS), default=list(PROVIDERS))
    parser.add_argument("--group-by-length", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.text, args.model = args.text.resolve(), args.model.resolve()
    if args.max_steps <= SKIPPED:
        parser.error(f"--max-steps {args.max_steps}: the first {SKIPPED} are not measured")
    return args


def main() -> None:
    args = parse()
    if args.worker:
        train_with_trainer(args)
        return
    conditions = {
        **{name: getattr(args, name) for name in ("max_steps", "batch", "seq", "lr", "threads")},
        **versions(PACKAGES),
        "cpu": cpu_model(),
    }
    output = args.results / f"train_mlm_{device_slug()}_{conditions['date']}.csv"
    rows: list[Line] = []
    for seed in args.seeds:
        for provider in args.providers:
            with tempfile.TemporaryDirectory() as folder:
                measured = run(provider, args, seed, Path(folder))
            rows.append({"provider": provider, "seed": seed, **measured, **conditions})
            write_rows(output, COLUMNS, rows[-1:])
            speed = measured["tokens_per_second"]
            print(f"{provider} seed {seed}: {speed:.0f} tokens/s", flush=True)
    print(f"\n{output}\n{table(rows)}")


if __name__ == "__main__":
    main()
