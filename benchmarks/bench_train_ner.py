#!/usr/bin/env python3
"""bigft beside transformers' Trainer: named entities, same model, data, batch, epochs and threads.

Every run is a process of its own; the providers take turns, so what else the machine does hits all
of them. One CSV row per run, and a table at the end. How to read it: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import bigft

ROOT = Path(__file__).resolve().parents[1]
WNUT17 = {
    "train": "wnut17train.conll",
    "validation": "emerging.dev.conll",
    "test": "emerging.test.annotated",
}
PACKAGES = ("torch", "transformers", "deepspeed")
MEASURED = (
    "tokens_per_second",
    "train_seconds",
    "seconds_to_first_step",
    "wall_seconds",
    "peak_rss_mib",
    "test_f1",
    "train_loss",
    "steps",
)
CONDITIONS = ("epochs", "batch", "lr", "cpu", "threads", *PACKAGES, "bigft", "date")
COLUMNS = ("provider", "precision", "seed", *MEASURED, *CONDITIONS)
IGNORED = -100
EVAL_BATCH = 32

Row = dict[str, Any]


class Finished(NamedTuple):
    """A process that ended well: when it was started (unix seconds), how long, its memory peak."""

    started: float
    wall_seconds: float
    peak_rss_mib: float


# -- providers: (arguments, precision, seed, scratch folder) -> what was measured ------------------


def run_bigft(args: argparse.Namespace, precision: str, seed: int, folder: Path) -> Row:
    """As a user would: a config, and `bigft train` of it."""
    config = {
        "task": "token-classification",
        "model": {"model_name_or_path": str(args.model)},
        "data": {f"{split}_file": str(file) for split, file in files(args).items()},
        "optim": {"learning_rate": args.lr},
        "parallel": {"zero_stage": 1 if precision == "bf16" else 0},
        "train": {
            "output_dir": str(folder / "run"),
            "seed": seed,
            "num_train_epochs": args.epochs,
            "max_steps": args.max_steps,
            "per_device_train_batch_size": args.batch,
            "per_device_eval_batch_size": EVAL_BATCH,
            "bf16": precision == "bf16",
            "logging_steps": 1,  # the first step's end is the first line of the log
            "eval_strategy": "no",
            "save_strategy": "no",
        },
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    process = run(["-m", "bigft", "train", str(path)], args.threads, folder)
    results = json.loads((folder / "run" / "all_results.json").read_text(encoding="utf-8"))
    lines = (folder / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    events = [json.loads(line) for line in lines]
    begin = next(event["time"] for event in events if event["event"] == "start")
    step_ends = [event["time"] for event in events if event["event"] == "log"]
    return {
        "tokens_per_second": results["train_tokens_per_second"],
        "train_seconds": step_ends[-1] - begin,
        "seconds_to_first_step": step_ends[0] - process.started,
        "wall_seconds": process.wall_seconds,
        "peak_rss_mib": process.peak_rss_mib,
        "test_f1": results["test_f1"],
        "train_loss": results["train_loss"],
        "steps": len(step_ends),
    }


def run_trainer(
    args: argparse.Namespace, precision: str, seed: int, folder: Path, more: Sequence[str] = ()
) -> Row:
    """This file again, in a process that trains with transformers' Trainer."""
    output = folder / "result.json"
    words = [__file__, "--worker", str(output), "--precisions", precision, "--seeds", str(seed)]
    for split, file in files(args).items():
        words += [f"--{split}", str(file)]
    for name in ("model", "epochs", "batch", "lr", "max_steps"):
        words += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    process = run([*words, *more], args.threads, folder)
    measured = json.loads(output.read_text(encoding="utf-8"))
    first_step = measured.pop("first_step")
    return measured | {
        "seconds_to_first_step": first_step - process.started,
        "wall_seconds": process.wall_seconds,
        "peak_rss_mib": process.peak_rss_mib,
    }


PROVIDERS: dict[str, Callable[[argparse.Namespace, str, int, Path], Row]] = {
    "trainer": run_trainer,
    # Batches of like lengths, which Trainer does not make by default.
    "trainer-grouped": partial(run_trainer, more=["--group-by-length"]),
    "bigft": run_bigft,
}


def run(words: Sequence[str], threads: int, folder: Path, checkout: Path = ROOT) -> Finished:
    """Runs python with `words` and waits for it. Exits with the tail of its output if it fails.

    checkout: whose bigft it imports."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(checkout), os.environ.get("PYTHONPATH")])),
        "OMP_NUM_THREADS": str(threads),
        "BIGFT_CACHE": str(folder / "cache"),  # empty: every provider prepares its data itself
    }
    log = folder / "log.txt"
    started, clock = time.time(), time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *words], env=environment, stdout=output, stderr=output, cwd=checkout
        )
        # wait4 tells this child's peak; RUSAGE_CHILDREN would be the peak over all of them.
        _, status, usage = os.wait4(process.pid, 0)
    wall_seconds = time.monotonic() - clock
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:])
        sys.exit(f"exit code {process.returncode} of python {' '.join(words)}\n{tail}")
    return Finished(started, wall_seconds, usage.ru_maxrss / 1024)


# -- the Trainer's process: what transformers' run_ner.py does ------------------------------------


def train_with_trainer(args: argparse.Namespace) -> None:
    """Trains, scores the test set with seqeval and writes what was measured to args.worker."""
    import torch
    from seqeval.metrics import f1_score
    from transformers import (
        AutoModelForTokenClassification,
        AutoTokenizer,
        DataCollatorForTokenClassification,
        Trainer,
        TrainerCallback,
        TrainingArguments,
        set_seed,
    )

    (seed,), (precision,) = args.seeds, args.precisions
    train, validation, test = (read_conll(file) for file in files(args).values())
    labels = sorted({tag for _, tags in train for tag in tags})
    set_seed(seed)
    tokenizer = AutoTokenizer.from_pretrained(args.model)
    model = AutoModelForTokenClassification.from_pretrained(
        args.model,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )

    def encode(sentences: list[tuple[list[str], list[str]]]) -> Any:
        """A list of rows, which Trainer takes for a data set; labels at words' first sub-tokens."""
        encoded = tokenizer(
            [words for words, _ in sentences], is_split_into_words=True, truncation=True
        )
        rows = []
        for number, (_, tags) in enumerate(sentences):
            words = encoded.word_ids(number)
            row = {name: encoded[name][number] for name in tokenizer.model_input_names}
            row["labels"] = [
                IGNORED if word is None or word == before else labels.index(tags[word])
                for before, word in zip([None, *words], words, strict=False)
            ]
            rows.append(row)
        return rows

    seen = {"tokens": 0}
    moments: list[float] = []  # the start of training, then the end of every step

    class CountingTrainer(Trainer):
        def training_step(self, model: Any, inputs: Any, *rest: Any) -> torch.Tensor:
            seen["tokens"] += int(inputs["attention_mask"].sum())
            return super().training_step(model, inputs, *rest)

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            moments.append(time.time())

        on_step_end = on_train_end = on_train_begin

    with tempfile.TemporaryDirectory() as folder:
        trainer = CountingTrainer(
            model=model,
            args=TrainingArguments(
                output_dir=folder,
                seed=seed,
                num_train_epochs=args.epochs,
                max_steps=args.max_steps,
                per_device_train_batch_size=args.batch,
                per_device_eval_batch_size=EVAL_BATCH,
                learning_rate=args.lr,
                lr_scheduler_type="linear",
                bf16=precision == "bf16",
                use_cpu=not torch.cuda.is_available(),
                train_sampling_strategy="group_by_length" if args.group_by_length else "random",
                eval_strategy="no",
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=encode(train),
            data_collator=DataCollatorForTokenClassification(tokenizer),
            processing_class=tokenizer,
            callbacks=[Clock()],
        )
        output = trainer.train()
        # As a run of bigft ends: both splits scored, the model written.
        trainer.evaluate(encode(validation))
        trainer.save_model()
        encoded = encode(test)
        logits_BTC = trainer.predict(encoded).predictions
    answers = []
    for row, logits_TC, (_, tags) in zip(encoded, logits_BTC, test, strict=True):
        places = [place for place, label in enumerate(row["labels"]) if label != IGNORED]
        predicted = [labels[logits_TC[place].argmax()] for place in places]
        answers.append(predicted + ["O"] * (len(tags) - len(places)))  # words that were cut off
    train_seconds = moments[-1] - moments[0]
    measured = {
        "tokens_per_second": seen["tokens"] / train_seconds,
        "train_seconds": train_seconds,
        "first_step": moments[1],
        "test_f1": f1_score([tags for _, tags in test], answers),
        "train_loss": output.training_loss,
        "steps": output.global_step,
    }
    args.worker.write_text(json.dumps(measured), encoding="utf-8")


def read_conll(path: Path) -> list[tuple[list[str], list[str]]]:
    """(words, tags) of each sentence: TAB between, and a blank line (or a lone TAB) after it."""
    sentences: list[tuple[list[str], list[str]]] = [([], [])]
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line.strip():
            word, tag = line.rstrip("\r").split("\t")
            sentences[-1][0].append(word)
            sentences[-1][1].append(tag)
        elif sentences[-1][0]:
            sentences.append(([], []))
    return [sentence for sentence in sentences if sentence[0]]


# -- the table, and the command line --------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    """Medians over the seeds, and how many times as fast as Trainer of the same precision."""
    lines = [
        f"{'precision':9} {'provider':15} {'tokens/s':>8} {'ratio':>6} {'train s':>8} "
        f"{'first step s':>12} {'wall s':>7} {'peak MiB':>8}  test F1"
    ]
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        groups.setdefault((row["precision"], row["provider"]), []).append(row)

    def median(group: Sequence[Row], column: str) -> float:
        return statistics.median(row[column] for row in group)

    for (precision, provider), group in groups.items():
        speed = median(group, "tokens_per_second")
        base = groups.get((precision, "trainer"))
        ratio = f"{speed / median(base, 'tokens_per_second'):6.2f}" if base else f"{'-':>6}"
        scores = [row["test_f1"] for row in group]
        spread = f" ± {statistics.stdev(scores):.4f}" if len(scores) > 1 else ""
        lines.append(
            f"{precision:9} {provider:15} {speed:8.0f} {ratio} "
            f"{median(group, 'train_seconds'):8.1f} "
            f"{median(group, 'seconds_to_first_step'):12.1f} {median(group, 'wall_seconds'):7.1f} "
            f"{median(group, 'peak_rss_mib'):8.0f}  {statistics.mean(scores):.4f}{spread}"
        )
    return "\n".join(lines)


def files(args: argparse.Namespace) -> dict[str, Path]:
    """The file of each split: the one named, else WNUT-17's under --data."""
    named = {split: getattr(args, split) for split in WNUT17}
    return {split: (file or args.data / WNUT17[split]).resolve() for split, file in named.items()}


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def device_name() -> str:
    """What both train on, for the name of the results: "cpu" or the GPU's. Not imported here: a
    child's memory peak is never below that of the process it was forked from."""
    code = "import torch as t; print(t.cuda.get_device_name() if t.cuda.is_available() else 'cpu')"
    name = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return name.stdout.strip().lower().replace(" ", "-")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, help="folder of the WNUT-17 files")
    for split in WNUT17:
        parser.add_argument(f"--{split}", type=Path, metavar="FILE", help="instead of --data's")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "all-MiniLM-L6-v2")
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--max-steps", type=int, default=-1, help="steps in all, for a quick look")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=1.5e-4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument(
        "--precisions", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"]
    )
    parser.add_argument("--threads", type=int, default=2, help="OMP_NUM_THREADS of every run")
    parser.add_argument(  # who takes turns; trainer-grouped makes batches of like lengths
        "--providers", nargs="+", choices=list(PROVIDERS), default=["trainer", "bigft"]
    )
    parser.add_argument("--group-by-length", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.data is None and not all(getattr(args, split) for split in WNUT17):
        parser.error("give --data DIR, or --train, --validation and --test")
    missing = [str(path) for path in [args.model, *files(args).values()] if not path.exists()]
    if missing:
        parser.error(f"not there: {', '.join(missing)}")
    return args


def main() -> None:
    args = parse()
    if args.worker:
        train_with_trainer(args)
        return
    date = datetime.date.today().isoformat()
    conditions = {
        "epochs": args.epochs,
        "batch": args.batch,
        "lr": args.lr,
        "cpu": cpu_model(),
        "threads": args.threads,
        **{package: version(package) for package in PACKAGES},
        "bigft": bigft.__version__,
        "date": date,
    }
    output = args.results / f"train_ner_{device_name()}_{date}.csv"
    output.parent.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    with output.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if file.tell() == 0:
            writer.writeheader()
        for seed in args.seeds:
            for precision in args.precisions:
                for provider in args.providers:
                    with tempfile.TemporaryDirectory() as folder:
                        measured = PROVIDERS[provider](args, precision, seed, Path(folder))
                    key = {"provider": provider, "precision": precision, "seed": seed}
                    rows.append({**key, **measured, **conditions})
                    writer.writerow(rows[-1])
                    file.flush()
                    speed = measured["tokens_per_second"]
                    print(f"{provider} {precision} seed {seed}: {speed:.0f} tokens/s", flush=True)
    print(f"\n{output}\n{table(rows)}")


if __name__ == "__main__":
    main()
