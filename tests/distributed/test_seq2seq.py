"""Losses and scores of a translation run are those of one rank, on two ranks and under ZeRO-3."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from distributed.ranks import run_ranks
from distributed.scenarios import train
from tiny_seq2seq import eos_tokenizer, tiny_seq2seq

pytestmark = pytest.mark.distributed

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A T5, and nine pairs of very different lengths: two ranks cannot share them evenly."""
    directory = tmp_path_factory.mktemp("seq2seq")
    tiny_seq2seq("t5", dropout_rate=0.0).save_pretrained(directory / "model")
    eos_tokenizer(model_max_length=128).save_pretrained(directory / "model")
    pairs = [
        {"source": " ".join(WORDS[: 1 + n % 7]), "target": " ".join(WORDS[n::-1][: 1 + n % 5])}
        for n in range(9)
    ]
    lines = [json.dumps(pair) + "\n" for pair in pairs]
    (directory / "pairs.jsonl").write_text("".join(lines))
    return directory


def config(place: Path, name: str, stage: int) -> dict[str, Any]:
    return {
        "task": {"name": "seq2seq", "max_target_length": 64, "generation": {"max_new_tokens": 9}},
        "model": {"model_name_or_path": str(place / "model")},
        "data": dict.fromkeys(("train_file", "validation_file"), str(place / "pairs.jsonl")),
        "optim": {"learning_rate": 0.01},
        "parallel": {"zero_stage": stage},
        "train": {
            "output_dir": str(place / name),
            "max_steps": 4,
            "global_batch_size": 4,
            "per_device_train_batch_size": 1,
            "per_device_eval_batch_size": 2,
            "logging_steps": 1,
            "save_strategy": "no",
            "eval_strategy": "no",
        },
    }


def test_two_ranks_are_one(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIGFT_CACHE", str(place / "cache"))
    (alone,) = run_ranks(train, 1, [config(place, "alone", 0)])[0]
    for stage, pair in zip(
        (1, 3),
        run_ranks(train, 2, [config(place, f"pair{stage}", stage) for stage in (1, 3)])[0],
        strict=True,
    ):
        losses, expected = (
            [event["loss"] for event in log if event["event"] == "log"] for log, _ in (pair, alone)
        )
        assert losses == pytest.approx(expected, rel=1e-5), stage
        for name in ("eval_bleu", "eval_chrf", "eval_token_accuracy"):
            assert pair[1][name] == alone[1][name], (stage, name)
        assert pair[1]["eval_perplexity"] == pytest.approx(alone[1]["eval_perplexity"], rel=1e-5)
    assert expected[-1] < expected[0]
    assert alone[1]["eval_chrf"] > 0  # it says something
