"""Labelled texts of a few words, and the configs of runs on them."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

WORDS = [f"word{number}" for number in range(60)]  # those of `tiny_bert`
LABELS = ["one", "two", "three"]
KINDS = ("windows", "several", "numbers")
NUMBER = 27


def write_texts(folder: Path) -> dict[str, Path]:
    """A file for each of KINDS: of 1 to 50 words, so that windows of 16 tokens are 1 to 5."""
    source = random.Random(0)
    rows = [source.choices(WORDS, k=source.choice([1, 2, 4, 9, 30, 50])) for _ in range(NUMBER)]
    files = {}
    for kind in KINDS:
        files[kind] = folder / f"{kind}.jsonl"
        with files[kind].open("w") as file:
            for words in rows:
                label: Any = LABELS[int(words[0][4:]) % 3]
                if kind == "several":
                    label = sorted({LABELS[int(word[4:]) % 3] for word in words[:2]})
                elif kind == "numbers":
                    label = int(words[0][4:]) / 7
                print(json.dumps({"text": " ".join(words), "label": label}), file=file)
    return files


def losses(events: list[dict[str, Any]]) -> list[float]:
    return [event["loss"] for event in events if event["event"] == "log"]


def text_config(
    config_for: Callable[..., dict[str, Any]],
    name: str,
    kind: str,
    files: dict[str, Path],
    **keys: Any,
) -> dict[str, Any]:
    config = config_for(name, files[kind], data__max_seq_length=16, **keys)
    config["task"] = {"name": "text-classification"}
    if kind == "windows":
        config["task"] |= {"long_texts": "windows", "doc_stride": 4}
    return config
