#!/usr/bin/env python3
"""Conversations to rows: `bigft check` beside datasets.map with apply_chat_template.

Both read the same JSON Lines with the same tokenizer and template, on so many processes, and leave
Arrow files behind. The peer makes ids alone; bigft makes labels too, and looks each conversation
through. Every run is a process of its own with an empty cache, and they take turns: each provider
with all conversations and with a few, and its seconds are the difference. How to read it:
benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from processes import ROOT, cpu_model, run
from rows import RESULTS, Row, versions, write_rows

PEER = "datasets.map"
FEW = 20  # conversations of a run that tells how long a start takes
WORDS, LETTERS = 30_000, "etaoinshrdlucmfwypvbgk"
TEMPLATES = {
    "chatml": (
        "{% for message in messages %}{{ '<|start|>' + message['role'] + '\\n' + "
        "message['content'] + '<|end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start|>assistant\\n' }}{% endif %}"
    ),
    "llama3": (
        "{% for message in messages %}{{ '<|start|>' + message['role'] + '<|header|>\\n\\n' + "
        "message['content'] | trim + '<|end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start|>assistant<|header|>\\n\\n' }}{% endif %}"
    ),
}
PACKAGES = ("tokenizers", "transformers", "datasets", "pyarrow")
COLUMNS = (
    "provider", "template", "round", "rows_per_second", "seconds", "seconds_of_few",
    "peak_rss_mib", "conversations", "megabytes", "processes", "cpu", *PACKAGES, "bigft", "date",
)  # fmt: skip


def conversations(number: int) -> Iterator[Row]:
    """Four turns of made-up words, the frequent ones short; 1.2 kB in the mean."""
    draw = random.Random(0)
    words = [
        "".join(draw.choices(LETTERS, range(len(LETTERS), 0, -1), k=2 + rank.bit_length() // 2))
        for rank in range(WORDS)
    ]
    weights = [1 / rank for rank in range(1, WORDS + 1)]

    def text(mean: float) -> str:
        some = draw.choices(words, weights, k=max(3, round(draw.lognormvariate(0, 0.6) * mean)))
        return " ".join(some).capitalize() + draw.choice(".?!\n")

    for _ in range(number):
        turns = [("user", text(20)), ("assistant", text(58))] * 2
        yield {"messages": [{"role": role, "content": content} for role, content in turns]}


def save_model(folder: Path, samples: Path, template: str, vocabulary: int) -> None:
    """The config of a small Llama, and a tokenizer trained on the samples."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    specials = ["<|pad|>", "<|end|>", "<|start|>", "<|header|>"]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    with samples.open(encoding="utf-8") as lines:
        first = [json.loads(line)["messages"] for line, _ in zip(lines, range(5000), strict=False)]
    tokenizer.train_from_iterator((turn["content"] for turns in first for turn in turns), trainer)
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|pad|>",
        eos_token="<|end|>",
        chat_template=TEMPLATES[template],
    ).save_pretrained(folder)
    shape = {"hidden_size": 64, "num_hidden_layers": 1, "max_position_embeddings": 8192}
    vocab_size = tokenizer.get_vocab_size()
    LlamaConfig(**shape, vocab_size=vocab_size, eos_token_id=1, pad_token_id=0).save_pretrained(
        folder
    )


def map_dataset(job: Row) -> None:
    """The peer's process."""
    from datasets import load_dataset
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job["model"])

    def encode(row: Row) -> Any:
        return tokenizer.apply_chat_template(row["messages"], tokenize=True, return_dict=True)

    cache = str(Path(job["folder"]) / "datasets")
    rows = load_dataset("json", data_files=job["file"], split="train", cache_dir=cache)
    rows.map(encode, remove_columns=["messages"], num_proc=job["processes"])


def measured(provider: str, job: Row) -> tuple[float, float]:
    """Seconds of the whole process, and MiB of its own peak memory."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if provider == PEER:
            words = [__file__, "--work", json.dumps({**job, "folder": name})]
        else:
            config = {
                "task": {"name": "causal-lm"},
                "model": {"model_name_or_path": job["model"], "from_scratch": True},
                "data": {
                    "train_file": job["file"],
                    "preprocessing_num_workers": job["processes"],
                },
                "train": {"output_dir": str(folder / "run")},
            }
            (folder / "config.yaml").write_text(json.dumps(config), encoding="utf-8")
            words = ["-m", "bigft", "check", str(folder / "config.yaml")]
        finished = run(words, folder, 1, job.get("checkout", ROOT))
    return finished.wall_seconds, finished.peak_rss_mib


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--conversations", type=int, default=60_000)
    parser.add_argument("--before", type=Path, metavar="DIR", help="a checkout to compare with")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--templates", nargs="+", choices=TEMPLATES, default=list(TEMPLATES))
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--work", type=json.loads, help=argparse.SUPPRESS)
    return parser.parse_args()


def write_samples(path: Path, rows: Sequence[Row]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def main() -> None:
    args = parse()
    if args.work:
        map_dataset(args.work)
        return
    everywhere = {
        "conversations": args.conversations,
        "processes": args.processes,
        "cpu": cpu_model(),
        **versions(PACKAGES),
    }
    output = args.results / f"prepare_chat_cpu_{everywhere['date']}.csv"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        samples = list(conversations(args.conversations))
        write_samples(folder / "all.jsonl", samples)
        write_samples(folder / "few.jsonl", samples[:FEW])
        everywhere["megabytes"] = (folder / "all.jsonl").stat().st_size / 1e6
        for template in args.templates:
            save_model(folder / template, folder / "all.jsonl", template, args.vocabulary)
            rates: dict[str, list[float]] = {PEER: [], "bigft": []}
            if args.before:
                rates["before"] = []
            for number in range(args.rounds):
                for provider, known in rates.items():
                    job: Row = {"model": str(folder / template), "processes": args.processes}
                    if provider == "before":
                        job["checkout"] = args.before.resolve()
                    few, _ = measured(provider, {**job, "file": str(folder / "few.jsonl")})
                    whole, peak = measured(provider, {**job, "file": str(folder / "all.jsonl")})
                    known.append(args.conversations / (whole - few))
                    row = {
                        "provider": provider, "template": template, "round": number,
                        "rows_per_second": known[-1], "seconds": whole - few,
                        "seconds_of_few": few, "peak_rss_mib": peak, **everywhere,
                    }  # fmt: skip
                    write_rows(output, COLUMNS, [row])
                    print(f"{template} {provider}: {known[-1]:.0f} rows/s", flush=True)
            for other, theirs in rates.items():
                if other == "bigft":
                    continue
                pairs = zip(rates["bigft"], theirs, strict=True)
                times = statistics.median(own / their for own, their in pairs)
                print(f"{template}: bigft makes {times:.2f} x the rows per second of {other}")


if __name__ == "__main__":
    sys.exit(main())
