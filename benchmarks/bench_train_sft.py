#!/usr/bin/env python3
"""bigft beside TRL's SFTTrainer: instruction tuning of one random Llama, loss on the answers only.

Every run is a process of its own; the providers take turns, so what else the machine does hits all
of them. One CSV row per run, and a table at the end. What is equal and what is not:
benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from hf_trainers import TRAINER, TRL, Line
from processes import Finished, cpu_model, device_slug, run
from rows import RESULTS, Row, versions, write_rows

# A Llama's shape: https://huggingface.co/meta-llama/Llama-3.2-1B is the largest.
SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"vocab_size": 1024, "hidden_size": 32, "intermediate_size": 64,
             "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1},
    "20m": {"vocab_size": 32_000, "hidden_size": 256, "intermediate_size": 688,
            "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2},
    "1b": {"vocab_size": 128_256, "hidden_size": 2048, "intermediate_size": 8192,
           "num_hidden_layers": 16, "num_attention_heads": 32, "num_key_value_heads": 8,
           "tie_word_embeddings": True},
}  # fmt: skip
MAX_VOCABULARY = 32_000  # of the tokenizer
BIGFT = {"bigft": False, "bigft-packed": True}  # whether rows are packed
PROVIDERS = (*TRL, TRAINER, *BIGFT)
BASELINE = "trl"
FIRST_STEPS = 5  # not measured: allocators and caches are cold
PACKAGES = ("torch", "transformers", "trl", "liger-kernel", "deepspeed")
MEASURED = (
    "tokens_per_second", "seconds_to_first_step", "wall_seconds", "peak_rss_mib",
    "peak_device_mib", "mfu", "final_loss", "steps", "targets", "leak",
)  # fmt: skip
CONDITIONS = (
    "data", "model_size", "parameters", "seq", "batch", "rows", "epochs", "max_steps", "lr",
    "bf16", "device", "threads", *PACKAGES, "bigft", "date",
)  # fmt: skip
COLUMNS = ("provider", "round", "not_measured", *MEASURED, *CONDITIONS)
# -- data: one JSONL of prompt and completion for all ----------------------------------------------


def samples(name: str, folder: Path) -> Iterator[dict[str, str]]:
    """Prompts that end with a colon, answers that begin with a space: whatever tokenises prompt and
    answer together or apart comes to the same tokens."""
    if name == "gsm8k":
        for line in (folder / "train.first2500.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            yield {"prompt": f"{row['question']}\n\nAnswer:", "completion": f" {row['answer']}"}
        return
    for file in ("seed_tasks.jsonl", "user_oriented_instructions.jsonl"):
        for line in (folder / file).read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            for case in row["instances"]:
                given = f"\n\n{case['input']}" if case["input"] else ""
                prompt = f"{row['instruction']}{given}\n\nAnswer:"
                yield {"prompt": prompt, "completion": f" {case['output']}"}


def write_samples(path: str, rows: Iterable[dict[str, str]]) -> None:
    lines = [json.dumps(row) + "\n" for row in rows]
    Path(path).write_text("".join(lines), encoding="utf-8")


# -- providers ------------------------------------------------------------------------------------


def run_bigft(job: Row, folder: Path) -> tuple[Finished, list[Line], Row]:
    """As a user would: a config, and `bigft train` of it."""
    packing = BIGFT[job["provider"]]
    config = {
        "task": job["task"],
        "model": {
            "model_name_or_path": job["model"],
            "attn_implementation": job["attn_implementation"],
        },
        "data": {
            "train_file": job["train_file"],
            "max_seq_length": job["seq"],
            "packing": packing,
        },
        "optim": {"learning_rate": job["lr"]},
        "parallel": {"zero_stage": 1 if job["bf16"] else 0},
        "train": {
            "output_dir": str(folder / "run"),
            "seed": job["seed"],
            "num_train_epochs": job["epochs"],
            "max_steps": job["max_steps"],
            "per_device_train_batch_size": job["rows"] if packing else job["batch"],
            "bf16": job["bf16"],
            "logging_steps": 1,
            "eval_strategy": "no",
            "save_strategy": "no",
        },
    }
    path = folder / "config.yaml"
    path.write_text(json.dumps(config), encoding="utf-8")  # JSON is YAML
    finished = run(["-m", "bigft", "train", str(path)], folder, job["threads"])
    return finished, read_log(folder / "run" / "metrics.jsonl"), {}


def read_log(metrics: Path) -> list[Line]:
    """The log lines of a run of bigft."""
    events = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    before = next(event["time"] for event in events if event["event"] == "start")
    lines = []
    for event in (event for event in events if event["event"] == "log"):
        tokens = event["tokens_per_second"] * (event["time"] - before)
        before = event["time"]
        lines.append(
            Line(before, event["epoch"], tokens, event["num_targets"], event["loss"])
        )  # fmt: skip
    return lines


def run_peer(job: Row, folder: Path) -> tuple[Finished, list[Line], Row]:
    """With TRL, or with transformers' Trainer."""
    finished, result = work({**job, "do": "train"}, folder)
    return finished, [Line(*line) for line in result["lines"]], {"leak": result["leak"]}


def work(job: Row, folder: Path) -> tuple[Finished, Row]:
    """Runs hf_trainers.py in a process of its own on the job; what it answered."""
    result, path = folder / "result.json", folder / "job.json"
    path.write_text(json.dumps({**job, "result": str(result)}), encoding="utf-8")
    words = [str(Path(__file__).with_name("hf_trainers.py")), str(path)]
    finished = run(words, folder, job["threads"])
    return finished, json.loads(result.read_text(encoding="utf-8"))


def why_absent(provider: str, device: str) -> str:
    """Why it cannot run here; empty: it can."""
    if provider in TRL and importlib.util.find_spec("trl") is None:
        return "not installed: trl"
    if "liger" in provider and device == "cpu":
        return "Liger's kernels run on GPUs only"
    if "liger" in provider and importlib.util.find_spec("liger_kernel") is None:
        return "not installed: liger-kernel"
    return ""


# -- what a run comes to --------------------------------------------------------------------------


def measured(started: float, lines: Sequence[Line], job: Row) -> Row:
    """From log line to log line, without the first steps.

    final_loss: mean over the targets of the last epoch, which are the same ones for every provider.
    """
    steady = lines[FIRST_STEPS:]
    seconds = steady[-1].time - lines[FIRST_STEPS - 1].time
    tokens_per_second = sum(line.tokens for line in steady) / seconds
    last = [line for line in lines if line.epoch > lines[-1].epoch - 1 + 1e-6]
    peak = job["peak_tflops"] * 1e12
    return {
        "tokens_per_second": tokens_per_second,
        "seconds_to_first_step": lines[0].time - started,
        "mfu": tokens_per_second * job["flops_per_token"] / peak if peak else None,
        "final_loss": sum(line.loss * line.targets for line in last)
        / sum(line.targets for line in last),
        "steps": len(lines),
        "targets": sum(line.targets for line in lines),
    }


class DeviceMemory:
    """The most that was in use on the first GPU within the block, in MiB; None on a CPU."""

    def __init__(self, device: str) -> None:
        self.peak: int | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch) if device == "cuda" else None

    def __enter__(self) -> DeviceMemory:
        if self._thread:
            self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._done.set()
        if self._thread:
            self._thread.join()

    def _watch(self) -> None:
        command = ["nvidia-smi", "-i", "0", "--query-gpu=memory.used",
                   "--format=csv,noheader,nounits"]  # fmt: skip
        while not self._done.wait(0.2):
            used = int(subprocess.run(command, capture_output=True, check=True).stdout)
            self.peak = max(self.peak or 0, used)


# -- the table, and the command line --------------------------------------------------------------


def table(rows: Sequence[Row]) -> str:
    """Medians over the rounds, and how many times as fast as `trl`."""
    lines = [
        f"{'provider':18} {'tokens/s':>9} {'ratio':>6} {'first step s':>12} {'wall s':>7} "
        f"{'peak MiB':>8} {'GPU MiB':>8} {'MFU':>6} {'final loss':>10} {'steps':>6} {'leak':>8}"
    ]
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["provider"], []).append(row)

    def median(provider: str, column: str) -> float | None:
        values = [row[column] for row in groups.get(provider, []) if row.get(column) is not None]
        return statistics.median(values) if values else None

    base = median(BASELINE, "tokens_per_second")
    for provider, group in groups.items():
        if group[0].get("not_measured"):
            lines.append(f"{provider:18} {group[0]['not_measured']}")
            continue
        speed = median(provider, "tokens_per_second")
        values = [
            (speed, "9.0f"),
            (speed / base if speed and base else None, "6.2f"),
            (median(provider, "seconds_to_first_step"), "12.1f"),
            (median(provider, "wall_seconds"), "7.1f"),
            (median(provider, "peak_rss_mib"), "8.0f"),
            (median(provider, "peak_device_mib"), "8.0f"),
            (median(provider, "mfu"), "6.3f"),
            (median(provider, "final_loss"), "10.4f"),
            (median(provider, "steps"), "6.0f"),
            (median(provider, "leak"), "8.1e"),
        ]
        cells = [
            f"{'-':>{form.partition('.')[0]}}" if value is None else f"{value:{form}}"
            for value, form in values
        ]
        lines.append(f"{provider:18} {' '.join(cells)}")
    return "\n".join(lines)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of self_instruct or gsm8k, named so"
    )
    parser.add_argument("--model-size", choices=list(SHAPES), default="20m")
    parser.add_argument("--seq", type=int, default=1024, help="tokens of a row at most")
    parser.add_argument("--batch", type=int, default=16, help="samples of a step, where padded")
    parser.add_argument("--rows", type=int, default=2, help="rows of --seq tokens, where packed")
    parser.add_argument("--epochs", type=float, default=3.0)
    parser.add_argument("--max-steps", type=int, default=-1, help="steps in all, for a quick look")
    parser.add_argument("--lr", type=float, default=3e-4)
    parser.add_argument("--rounds", type=int, default=1, help="runs of each provider")
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--attn-implementation", help="of the model, for all; else transformers'")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--peak-tflops", type=float, default=0.0, help="the GPU's, for MFU")
    parser.add_argument("--threads", type=int, default=2, help="OMP_NUM_THREADS of every run")
    parser.add_argument(
        "--providers", nargs="+", choices=PROVIDERS, default=list(PROVIDERS), metavar="NAME",
        help=f"who takes turns: {', '.join(PROVIDERS)}",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args(argv)
    if not args.data.is_dir():
        parser.error(f"--data DIR: no folder {args.data}")
    return args


def prepared(args: argparse.Namespace, folder: Path) -> Row:
    """What every run is told. The model, its tokenizer and the data lie in the folder."""
    shape = SHAPES[args.model_size]
    job = {
        **{name: value for name, value in vars(args).items() if name not in ("out", "data")},
        "data": args.data.name,
        "task": "causal-lm",
        "auto_class": "AutoModelForCausalLM",
        "model_type": "llama",
        "shape": {**shape, "max_position_embeddings": args.seq, "bos_token_id": None},
        "vocabulary": min(MAX_VOCABULARY, shape["vocab_size"]),
        "model": str(folder / "model"),
        "train_file": str(folder / "train.jsonl"),
    }
    write_samples(job["train_file"], samples(args.data.name, args.data))
    return job | work({**job, "do": "model", "seed": 0}, folder)[1]


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    if args.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    device = device_slug() if args.device == "cuda" else "cpu"
    everywhere = {"device": cpu_model() if device == "cpu" else device, **versions(PACKAGES)}
    output = args.out / f"train_sft_{device}_{everywhere['date']}.csv"
    rows: list[Row] = []
    with tempfile.TemporaryDirectory() as name:
        job = prepared(args, Path(name))
        for number in range(args.rounds):
            for provider in args.providers:
                row: Row = {"provider": provider, "round": number}
                row["not_measured"] = why_absent(provider, args.device)
                if not row["not_measured"]:
                    row |= run_provider({**job, "provider": provider, "seed": 42 + number})
                rows.append({**job, **everywhere, **row})
                write_rows(output, COLUMNS, [{name: rows[-1].get(name) for name in COLUMNS}])
                speed = row.get("tokens_per_second", 0.0)
                print(f"{provider}: {row['not_measured'] or f'{speed:.0f} tokens/s'}", flush=True)
    print(f"\n{output}\n{table(rows)}")


def run_provider(job: Row) -> Row:
    """One run: what was measured."""
    with tempfile.TemporaryDirectory() as name, DeviceMemory(job["device"]) as memory:
        runner = run_bigft if job["provider"] in BIGFT else run_peer
        process, lines, more = runner(job, Path(name))
    return {
        **measured(process.started, lines, job),
        "wall_seconds": process.wall_seconds,
        "peak_rss_mib": process.peak_rss_mib,
        "peak_device_mib": memory.peak,
        **more,
    }


if __name__ == "__main__":
    main()
