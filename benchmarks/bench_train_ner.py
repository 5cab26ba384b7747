#!/usr/bin/env python3
"""bigft beside transformers' Trainer: named entities of WNUT-17, same model, data, batch, epochs,
threads. How to read it: benchmarks/README.md."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from beside_trainer import TRAINER, Files, Peer, Subject, main
from hf_trainers import IGNORED

Sentence = tuple[list[str], list[str]]  # words, tags

WNUT17 = {
    "train": "wnut17train.conll",
    "validation": "emerging.dev.conll",
    "test": "emerging.test.annotated",
}


def peer(directory: Path, files: Files) -> Peer:
    """As transformers' run_ner.py does it: labels at the words' first sub-tokens."""
    from seqeval.metrics import f1_score
    from transformers import (
        AutoModelForTokenClassification,
        AutoTokenizer,
        DataCollatorForTokenClassification,
    )

    splits = {split: read_conll(file) for split, file in files.items()}
    labels = sorted({tag for _, tags in splits["train"] for tag in tags})
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForTokenClassification.from_pretrained(
        directory,
        num_labels=len(labels),
        id2label=dict(enumerate(labels)),
        label2id={label: number for number, label in enumerate(labels)},
    )

    def encode(sentences: list[Sentence]) -> Any:
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

    rows = {split: encode(sentences) for split, sentences in splits.items()}

    def score(logits_BTC: Any) -> float:
        answers = []
        for row, logits_TC, (_, tags) in zip(rows["test"], logits_BTC, splits["test"], strict=True):
            places = [place for place, label in enumerate(row["labels"]) if label != IGNORED]
            predicted = [labels[logits_TC[place].argmax()] for place in places]
            answers.append(predicted + ["O"] * (len(tags) - len(places)))  # words that were cut off
        return float(f1_score([tags for _, tags in splits["test"]], answers))

    return Peer(model, tokenizer, DataCollatorForTokenClassification(tokenizer), rows, score)


def read_conll(path: Path) -> list[Sentence]:
    """TAB between word and tag, and a blank line (or a lone TAB) after each sentence."""
    sentences: list[Sentence] = [([], [])]
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line.strip():
            word, tag = line.rstrip("\r").split("\t")
            sentences[-1][0].append(word)
            sentences[-1][1].append(tag)
        elif sentences[-1][0]:
            sentences.append(([], []))
    return [sentence for sentence in sentences if sentence[0]]


SUBJECT = Subject(
    name="ner",
    file=__file__,
    files=WNUT17,
    score="test_f1",
    config={"task": "token-classification"},
    peer=peer,
    precisions=("fp32", "bf16"),
    providers=(TRAINER, "bigft"),
)

if __name__ == "__main__":
    main(SUBJECT)
