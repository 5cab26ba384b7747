#!/usr/bin/env python3
"""bigft beside transformers' Trainer: intents of banking77, same model, data, batch, epochs,
threads. How to read it: benchmarks/README.md."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from beside_trainer import Files, Peer, Subject, main

TEXT, LABEL = "text", "category"  # columns


def peer(directory: Path, files: Files) -> Peer:
    """As transformers' run_classification.py does it."""
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
    )

    splits = {split: read_csv(file) for split, file in files.items()}
    labels = sorted({label for _, label in splits["train"]})
    ids = {label: number for number, label in enumerate(labels)}
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForSequenceClassification.from_pretrained(
        directory, num_labels=len(labels), id2label=dict(enumerate(labels)), label2id=ids
    )

    def encode(samples: list[tuple[str, str]]) -> Any:
        encoded = tokenizer([text for text, _ in samples], truncation=True)
        return [
            {name: encoded[name][number] for name in tokenizer.model_input_names}
            | {"labels": ids[label]}
            for number, (_, label) in enumerate(samples)
        ]

    rows = {split: encode(samples) for split, samples in splits.items()}

    def score(logits_BC: Any) -> float:
        gold = [row["labels"] for row in rows["test"]]
        return float((logits_BC.argmax(axis=-1) == gold).mean())

    return Peer(model, tokenizer, DataCollatorWithPadding(tokenizer), rows, score)


def read_csv(path: Path) -> list[tuple[str, str]]:
    """(text, label) of each row."""
    with path.open(newline="", encoding="utf-8") as file:
        return [(row[TEXT], row[LABEL]) for row in csv.DictReader(file)]


SUBJECT = Subject(
    name="text",
    file=__file__,
    files={"train": "train.csv", "test": "test.csv"},
    score="test_accuracy",
    config={
        "task": {"name": "text-classification"},
        "data": {"text_column_name": TEXT, "label_column_name": LABEL},
    },
    peer=peer,
    providers=("trainer", "trainer-grouped", "bigft", "bigft-random"),
)

if __name__ == "__main__":
    main(SUBJECT)
