"""The training benchmarks read what runs write, and give every provider the same targets."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bench_train_scratch
import bench_train_sft as sft
import hf_trainers
import pytest
import torch
from hf_trainers import IGNORED, Line
from tiny import tiny_model

from bigft.config.sections import RunConfig
from bigft.training.inputs import prepare

GSM8K = {"question": "How many?", "answer": "2 + 2 = 4\n#### 4"}
TASK = {"instruction": "Add.", "instances": [{"input": "1 1", "output": "2"}]}
ASKED = {"instruction": "Say hi.", "instances": [{"input": "", "output": "hi"}]}


def write_lines(path: Path, *rows: Any) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def test_both_data_sets_become_prompts_and_completions(tmp_path: Path) -> None:
    write_lines(tmp_path / "gsm8k" / "train.first2500.jsonl", GSM8K)
    write_lines(tmp_path / "self_instruct" / "seed_tasks.jsonl", TASK)
    write_lines(tmp_path / "self_instruct" / "user_oriented_instructions.jsonl", ASKED)
    read = {name: list(sft.samples(name, tmp_path / name)) for name in ("gsm8k", "self_instruct")}
    assert read["gsm8k"] == [{"prompt": "How many?\n\nAnswer:", "completion": " 2 + 2 = 4\n#### 4"}]
    assert read["self_instruct"] == [
        {"prompt": "Add.\n\n1 1\n\nAnswer:", "completion": " 2"},
        {"prompt": "Say hi.\n\nAnswer:", "completion": " hi"},
    ]


def test_rates_come_from_the_log_lines_without_the_first_steps(tmp_path: Path) -> None:
    write_lines(
        tmp_path / "metrics.jsonl",
        {"event": "start", "time": 100.0},
        {"event": "note", "time": 100.5},
        *(
            {"event": "log", "time": 110.0 + step, "epoch": (step + 1) / 4, "num_targets": 10,
             "loss": 8.0 - step, "tokens_per_second": 50.0 + step}
            for step in range(8)
        ),
    )  # fmt: skip
    lines = sft.read_log(tmp_path / "metrics.jsonl")
    assert lines[0] == Line(110.0, 0.25, 500.0, 10, 8.0)
    assert lines[1] == Line(111.0, 0.5, 51.0, 10, 7.0)
    row = sft.measured(95.0, lines, {"peak_tflops": 1.0, "flops_per_token": 1e9})
    assert row["tokens_per_second"] == (55 + 56 + 57) / 3
    assert row["seconds_to_first_step"] == 15.0
    assert row["final_loss"] == (4 + 3 + 2 + 1) / 4  # the last of two epochs
    assert row["mfu"] == pytest.approx(0.056)
    assert (row["steps"], row["targets"]) == (8, 80)


def test_the_table_names_the_absent_and_compares_with_trl() -> None:
    measured = {"seconds_to_first_step": 1.0, "wall_seconds": 9.0, "peak_rss_mib": 500.0,
                "final_loss": 2.0, "steps": 10}  # fmt: skip
    text = sft.table(
        [
            {"provider": "trl", "tokens_per_second": 100.0, **measured},
            {"provider": "bigft", "tokens_per_second": 150.0, **measured},
            {"provider": "bigft", "tokens_per_second": 250.0, **measured},
            {"provider": "trl-liger", "not_measured": "not installed: liger-kernel"},
        ]
    )
    _, trl, ours, liger = text.splitlines()
    assert trl.split()[1:3] == ["100", "1.00"]
    assert ours.split()[1:3] == ["200", "2.00"]
    assert liger.split(maxsplit=1) == ["trl-liger", "not installed: liger-kernel"]
    assert sft.why_absent("trl-liger-packed", "cpu")
    assert sft.why_absent("bigft", "cpu") == sft.why_absent("trainer", "cpu") == ""


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Of a tiny model on two samples, one of them longer than a row."""
    monkeypatch.setenv("BIGFT_CACHE", str(tmp_path / "cache"))
    write_lines(tmp_path / "data" / "train.first2500.jsonl", GSM8K, GSM8K | {"question": "9 " * 99})
    arguments = ["--data", str(tmp_path / "data"), "--model-size", "tiny", "--seq", "64"]
    made = vars(sft.parse(arguments))
    shape = sft.SHAPES["tiny"] | {"max_position_embeddings": 64, "bos_token_id": None}
    made |= {"auto_class": "AutoModelForCausalLM", "model_type": "llama", "shape": shape,
             "vocabulary": 300, "seed": 0, "model": str(tmp_path / "model"),
             "train_file": str(tmp_path / "train.jsonl")}  # fmt: skip
    sft.write_samples(made["train_file"], sft.samples("gsm8k", tmp_path / "data"))
    assert hf_trainers.save_model(made)["parameters"] > 0
    return made


def test_bigft_and_the_trainer_see_the_same_tokens_and_targets(job: dict[str, Any]) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job["model"])
    (theirs,) = hf_trainers.rows_of(job["train_file"], job, tokenizer)  # the long one is gone
    config = {
        "task": "causal-lm",
        "model": {"model_name_or_path": job["model"]},
        "data": {"train_file": job["train_file"], "max_seq_length": 64},
        "train": {"output_dir": "unused"},
    }
    split = prepare(RunConfig.model_validate(config)).splits["train"]
    ours = split.row(0)
    assert ours.columns["input_ids"] == theirs["input_ids"]
    assert [*ours.columns["labels"][:-1]] == theirs["labels"][1:]  # theirs are shifted in the model
    assert sum(label != IGNORED for label in theirs["labels"]) == split.num_targets.sum() > 5


@pytest.mark.parametrize(("positions", "leaks"), [([0, 1, 0, 1, 2], False), (range(5), True)])
def test_a_leak_between_packed_samples_is_measured(positions: Sequence[int], leaks: bool) -> None:
    def collate(rows: Any) -> dict[str, torch.Tensor]:
        ids = torch.tensor([[5, 6, 7, 8, 9]])
        return {"input_ids": ids, "position_ids": torch.tensor([list(positions)]), "labels": ids}

    trainer = SimpleNamespace(
        train_dataset=[{"seq_lengths": [2, 3]}] * 2,
        data_collator=collate,
        model=tiny_model("llama", "AutoModelForCausalLM"),
    )
    assert (hf_trainers.leak(trainer) > 1e-3) is leaks


def test_losses_of_a_run_are_means_per_target_of_its_sixths() -> None:
    lines = [Line(0.0, 0.0, 0.0, 1 + step % 2, float(step)) for step in range(12)]
    losses = bench_train_scratch.window_losses(lines)
    assert losses == [(first + 2 * (first + 1)) / 3 for first in range(0, 12, 2)]


@pytest.mark.real
def test_no_english_sentence_is_both_trained_and_evaluated(
    real_data: Callable[[str], Path],
) -> None:
    training, evaluation = bench_train_scratch.tatoeba(real_data("tatoeba_en_zh"))
    assert len(training) + len(evaluation) == 9719
    assert len(evaluation) > 400
    assert not {row["source"] for row in training} & {row["source"] for row in evaluation}
