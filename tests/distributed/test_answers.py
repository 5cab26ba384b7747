"""What two ranks generate is compared with what the template makes of an answer, ZeRO-3 too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed.ranks import run_ranks
from distributed.scenarios import train
from tasks.causal import causal_model
from tasks.chat import EMPTY_THOUGHT, chat_tokenizer
from transformers import AutoModelForCausalLM

pytestmark = pytest.mark.distributed

ANSWERS = {"a": "x", "b": " y\n", "c": "zz"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama whose template puts an empty thought before each answer, and trims it."""
    directory = tmp_path_factory.mktemp("answers")
    causal_model().save_pretrained(directory / "model")
    chat_tokenizer(EMPTY_THOUGHT).save_pretrained(directory / "model")
    with (directory / "train.jsonl").open("w") as file:
        for prompt, completion in ANSWERS.items():
            messages = [
                {"role": "user", "content": prompt},
                {"role": "assistant", "content": completion},
            ]
            print(json.dumps({"messages": messages}), file=file)
    return directory


def config(place: Path, stage: int) -> dict[str, Any]:
    return {
        "task": {
            "name": "causal-lm",
            "predict_with_generate": True,
            "generation": {"max_new_tokens": 24},
        },
        "model": {"model_name_or_path": str(place / "model")},
        "data": dict.fromkeys(("train_file", "validation_file"), str(place / "train.jsonl")),
        "optim": {"learning_rate": 0.02},
        "parallel": {"zero_stage": stage},
        "train": {
            "output_dir": str(place / f"stage{stage}"),
            "max_steps": 60,
            "global_batch_size": 3,
            "per_device_train_batch_size": 2,
            "per_device_eval_batch_size": 2,
            "eval_strategy": "steps",
            "eval_steps": 20,
            "save_strategy": "steps",
            "save_steps": 20,
            "load_best_model_at_end": True,
            "metric_for_best_model": "exact_match",
            "greater_is_better": True,
        },
    }


def test_an_answer_that_is_learnt_is_an_exact_match(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIGFT_CACHE", str(place / "cache"))
    stages = (2, 3)
    runs = run_ranks(train, 2, [config(place, stage) for stage in stages])[0]
    for stage, (log, results) in zip(stages, runs, strict=True):
        seen = [event for event in log if event["event"] == "eval"]
        assert results["eval_token_accuracy"] == results["eval_exact_match"] == 1, stage
        # It is what is learnt that counts, not what a message holds: not all along.
        assert seen[0]["eval_exact_match"] < 1, stage

    tokenizer = chat_tokenizer(EMPTY_THOUGHT)
    model = AutoModelForCausalLM.from_pretrained(place / "stage3" / "model")
    for prompt, answer in ANSWERS.items():
        talk = [{"role": "user", "content": prompt}]
        ids = tokenizer.apply_chat_template(talk, add_generation_prompt=True, return_tensors="pt")
        with torch.no_grad():
            written = model.generate(**ids, max_new_tokens=24)[0, ids["input_ids"].shape[1] :]
        text = tokenizer.decode(written, skip_special_tokens=True)
        assert text == f"<think>\n\n</think>\n\n{answer.strip()}"
