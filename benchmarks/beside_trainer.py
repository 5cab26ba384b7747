"""bigft beside transformers' Trainer on one task: what the benchmarks of tasks have in common.

A benchmark names a Subject and calls `main`. Every run is a process of its own; the providers take
turns, so what else the machine does hits all of them. One CSV row per run, and a table at the end.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from hf_trainers import EVAL_BATCH, counting
from processes import ROOT, Finished, cpu_model, device_slug, run
from rows import RESULTS, Row, versions, write_rows

PACKAGES = ("torch", "transformers", "deepspeed")
MEASURED = (
    "samples_per_second",
    "tokens_per_second",
    "train_seconds",
    "seconds_to_first_step",
    "wall_seconds",
    "cpu_seconds",
    "peak_rss_mib",
    "score",
    "train_loss",
    "steps",
)
CONDITIONS = ("epochs", "batch", "lr", "cpu", "threads", *PACKAGES, "bigft", "date")
COLUMNS = ("provider", "precision", "seed", *MEASURED, *CONDITIONS)
TRAINER, GROUPED = "trainer", "trainer-grouped"
# `bigft train` whose batches are drawn at random: no window is wider than a batch.
AT_RANDOM = (
    "from bigft.data import order; order.WINDOW_BATCHES = 1; "
    "import sys; from bigft.cli import main; sys.exit(main())"
)

Files = Mapping[str, Path]


class Peer(NamedTuple):
    """What Trainer is given, in its own process.

    rows: of each split.  score: of the test split, from what `Trainer.predict` answers of its rows.
    """

    model: Any
    tokenizer: Any
    collator: Any
    rows: Mapping[str, list[Row]]
    score: Callable[[Any], float]


@dataclass(frozen=True, slots=True)
class Subject:
    """A task, its data, and how both sides are told.

    file: the benchmark's own; Trainer's process runs it again.
    files: the name of each split's file in the folder of the data: train, test, maybe validation.
    score: what the results of a run of bigft call the score of the test set.
    config: bigft's `task`, and its `data` but for the files.
    peer: what Trainer is given for the model, on the files.
    """

    name: str
    file: str
    files: Mapping[str, str]
    score: str
    config: Row
    peer: Callable[[Path, Files], Peer]
    epochs: float = 3.0
    lr: float = 1.5e-4
    precisions: tuple[str, ...] = ("fp32",)
    providers: tuple[str, ...] = (TRAINER, GROUPED, "bigft")


# -- providers: (subject, arguments, precision, seed, scratch folder) -> what was measured ---------


def run_bigft(
    subject: Subject,
    args: argparse.Namespace,
    precision: str,
    seed: int,
    folder: Path,
    program: Sequence[str] = ("-m", "bigft"),
) -> Row:
    """As a user would: a config, and `bigft train` of it."""
    config = config_of(subject, args, precision, seed, folder / "run")
    path = folder / "config.yaml"
    path.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    process = run([*program, "train", str(path)], folder, args.threads)
    results = json.loads((folder / "run" / "all_results.json").read_text(encoding="utf-8"))
    return of_process(process) | of_run(folder / "run" / "metrics.jsonl", process.started) | {
        "tokens_per_second": results["train_tokens_per_second"],
        "score": results[subject.score],
        "train_loss": results["train_loss"],
    }  # fmt: skip


def config_of(
    subject: Subject, args: argparse.Namespace, precision: str, seed: int, output: Path
) -> Row:
    named = {f"{split}_file": str(file) for split, file in files(subject, args).items()}
    return {
        "task": subject.config["task"],
        "model": {"model_name_or_path": str(args.model)},
        "data": {**subject.config.get("data", {}), **named},
        "optim": {"learning_rate": args.lr},
        "parallel": {"zero_stage": 1 if precision == "bf16" else 0},
        "train": {
            "output_dir": str(output),
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


def of_run(metrics: Path, started: float) -> Row:
    """From the events of a run of bigft, whose process started then."""
    events = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    begin = next(event for event in events if event["event"] == "start")
    steps = [event for event in events if event["event"] == "log"]
    train_seconds = steps[-1]["time"] - begin["time"]
    return {
        "samples_per_second": steps[-1]["epoch"] * begin["num_samples"] / train_seconds,
        "train_seconds": train_seconds,
        "seconds_to_first_step": steps[0]["time"] - started,
        "steps": len(steps),
    }


def run_trainer(
    subject: Subject,
    args: argparse.Namespace,
    precision: str,
    seed: int,
    folder: Path,
    more: Sequence[str] = (),
) -> Row:
    """The benchmark's file again, in a process that trains with transformers' Trainer."""
    output = folder / "result.json"
    words = [subject.file, "--worker", str(output), "--precisions", precision]
    words += ["--seeds", str(seed), *more]
    for split, file in files(subject, args).items():
        words += [f"--{split}", str(file)]
    for name in ("model", "epochs", "batch", "lr", "max_steps"):
        words += [f"--{name.replace('_', '-')}", str(getattr(args, name))]
    process = run(words, folder, args.threads)
    measured = json.loads(output.read_text(encoding="utf-8"))
    first_step = measured.pop("first_step")
    return of_process(process) | measured | {"seconds_to_first_step": first_step - process.started}


def of_process(process: Finished) -> Row:
    return {
        name: getattr(process, name) for name in ("wall_seconds", "cpu_seconds", "peak_rss_mib")
    }


PROVIDERS: dict[str, Callable[[Subject, argparse.Namespace, str, int, Path], Row]] = {
    TRAINER: run_trainer,
    # Batches of like lengths, which Trainer does not make by default.
    GROUPED: partial(run_trainer, more=["--group-by-length"]),
    "bigft": run_bigft,
    "bigft-random": partial(run_bigft, program=["-c", AT_RANDOM]),
}


# -- Trainer's process ----------------------------------------------------------------------------


def train_with_trainer(subject: Subject, args: argparse.Namespace) -> None:
    """Trains, scores the test set and writes what was measured to args.worker."""
    import torch
    from transformers import Trainer, TrainerCallback, TrainingArguments, set_seed

    (seed,), (precision,) = args.seeds, args.precisions
    set_seed(seed)
    peer = subject.peer(args.model, files(subject, args))
    seen: dict[str, int] = {}
    moments: list[float] = []  # the start of training, then the end of every step

    class Clock(TrainerCallback):
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            moments.append(time.time())

        on_step_end = on_train_end = on_train_begin

    with tempfile.TemporaryDirectory() as folder:
        trainer = counting(Trainer, seen)(
            model=peer.model,
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
            train_dataset=peer.rows["train"],
            data_collator=peer.collator,
            processing_class=peer.tokenizer,
            callbacks=[Clock()],
        )
        output = trainer.train()
        # As a run of bigft ends: the other splits scored, the model written.
        if "validation" in peer.rows:
            trainer.evaluate(peer.rows["validation"])
        trainer.save_model()
        score = peer.score(trainer.predict(peer.rows["test"]).predictions)
    train_seconds = moments[-1] - moments[0]
    measured = {
        "samples_per_second": seen["samples"] / train_seconds,
        "tokens_per_second": seen["tokens"] / train_seconds,
        "train_seconds": train_seconds,
        "first_step": moments[1],
        "score": score,
        "train_loss": output.training_loss,
        "steps": output.global_step,
    }
    args.worker.write_text(json.dumps(measured), encoding="utf-8")


# -- the table, and the command line --------------------------------------------------------------


def table(rows: Sequence[Row], score: str) -> str:
    """Medians over the seeds. Ratios are of the samples per second, to each Trainer of the same
    precision: medians over the pairs of one seed."""
    lines = [
        f"{'precision':9} {'provider':15} {'samples/s':>9} {'tokens/s':>8} {'to Trainer':>10} "
        f"{'to grouped':>10} {'train s':>8} {'first step s':>12} {'wall s':>7} {'CPU s':>7} "
        f"{'peak MiB':>8}  {score}"
    ]
    groups: dict[tuple[str, str], dict[int, Row]] = {}
    for row in rows:
        groups.setdefault((row["precision"], row["provider"]), {})[row["seed"]] = row
    for (precision, provider), group in groups.items():
        ratios = [_ratio(group, groups.get((precision, base), {})) for base in (TRAINER, GROUPED)]
        runs = list(group.values())
        medians = {name: statistics.median(row[name] for row in runs) for name in MEASURED}
        scores = [row["score"] for row in runs]
        spread = f" ± {statistics.stdev(scores):.4f}" if len(scores) > 1 else ""
        lines.append(
            f"{precision:9} {provider:15} {medians['samples_per_second']:9.1f} "
            f"{medians['tokens_per_second']:8.0f} {ratios[0]:>10} {ratios[1]:>10} "
            f"{medians['train_seconds']:8.1f} {medians['seconds_to_first_step']:12.1f} "
            f"{medians['wall_seconds']:7.1f} {medians['cpu_seconds']:7.1f} "
            f"{medians['peak_rss_mib']:8.0f}  {statistics.mean(scores):.4f}{spread}"
        )
    return "\n".join(lines)


def _ratio(own: Mapping[int, Row], base: Mapping[int, Row]) -> str:
    rate = "samples_per_second"
    pairs = [own[seed][rate] / base[seed][rate] for seed in own if seed in base]
    return f"{statistics.median(pairs):.2f}" if pairs else "-"


def files(subject: Subject, args: argparse.Namespace) -> dict[str, Path]:
    """The file of each split: the one named, else the one in the folder of the data."""
    named = {split: getattr(args, split) for split in subject.files}
    return {split: (file or args.data / subject.files[split]).resolve()
            for split, file in named.items()}  # fmt: skip


def parse(subject: Subject, argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False, description=f"measures {subject.name}")
    parser.add_argument("--data", type=Path, help=f"folder of {', '.join(subject.files.values())}")
    for split in subject.files:
        parser.add_argument(f"--{split}", type=Path, metavar="FILE", help="instead of --data's")
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "all-MiniLM-L6-v2")
    parser.add_argument("--epochs", type=float, default=subject.epochs)
    parser.add_argument("--max-steps", type=int, default=-1, help="steps in all, for a quick look")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--lr", type=float, default=subject.lr)
    parser.add_argument("--seeds", type=int, nargs="+", default=[42, 43, 44])
    parser.add_argument(
        "--precisions", nargs="+", choices=["fp32", "bf16"], default=[*subject.precisions]
    )
    parser.add_argument("--threads", type=int, default=2, help="OMP_NUM_THREADS of every run")
    parser.add_argument(
        "--providers", nargs="+", choices=list(PROVIDERS), default=[*subject.providers],
        help="who takes turns",
    )  # fmt: skip
    parser.add_argument("--group-by-length", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.data is None and not all(getattr(args, split) for split in subject.files):
        parser.error(f"give --data DIR, or {', '.join(f'--{split}' for split in subject.files)}")
    paths = [args.model, *files(subject, args).values()]
    if missing := [str(path) for path in paths if not path.exists()]:
        parser.error(f"not there: {', '.join(missing)}")
    return args


def main(subject: Subject) -> None:
    args = parse(subject)
    if args.worker:
        train_with_trainer(subject, args)
        return
    everywhere = {
        "epochs": args.epochs,
        "batch": args.batch,
        "lr": args.lr,
        "cpu": cpu_model(),
        "threads": args.threads,
        **versions(PACKAGES),
    }
    output = args.results / f"train_{subject.name}_{device_slug()}_{everywhere['date']}.csv"
    rows: list[Row] = []
    for seed in args.seeds:
        for precision in args.precisions:
            for provider in args.providers:
                with tempfile.TemporaryDirectory() as name:
                    measured = PROVIDERS[provider](subject, args, precision, seed, Path(name))
                key = {"provider": provider, "precision": precision, "seed": seed}
                rows.append({**key, **measured, **everywhere})
                write_rows(output, COLUMNS, rows[-1:])
                speed = measured["samples_per_second"]
                print(f"{provider} {precision} seed {seed}: {speed:.1f} samples/s", flush=True)
    print(f"\n{output}\n{table(rows, subject.score)}")
