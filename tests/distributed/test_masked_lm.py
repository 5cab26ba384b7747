"""Masked language models: masks, losses and weights are the same on every layout of ranks, and a
run that was killed is the run that was not."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from distributed.ranks import run_ranks
from distributed.scenarios import train
from faults.harness import Ranks, assert_same, finish, left_by, logged_steps, resumed
from safetensors.torch import load_file

from bigft.config.sections import RunConfig
from bigft.runtime.seeding import address
from bigft.training.inputs import prepare

pytestmark = pytest.mark.distributed

LAYOUTS = {"1x8": (1, 8), "1x2x4": (1, 2), "2x2x2": (2, 2), "4x2": (4, 2)}
WORDS = [f"word{number}" for number in range(60)]
# Words of each line: of some, no word is masked.
LENGTHS = [1, 40, 2, 1, 30, 3, 1, 1, 17, 2, 5, 1, 38, 1, 1, 9, 2, 25, 1, 4, 1, 33, 2, 1, 12, 1, 6]
LINES = {"line_by_line": True, "masking": "token", "mlm_probability": 0.15}
BLOCKS = {"masking": "whole_word", "mlm_probability": 0.3}
PAIRS = {"next_sentence_prediction": True}
KINDS = {"lines": LINES, "blocks": BLOCKS, "pairs": PAIRS}
# By layout the ZeRO stages of each kind.
CELLS = {
    "1x8": {"lines": (0, 2), "blocks": (0,), "pairs": (0,)},
    "1x2x4": {"lines": (1, 3), "blocks": (2,), "pairs": (1,)},
    "2x2x2": {"lines": (0, 2, 3), "blocks": (1,), "pairs": (3,)},
    "4x2": {"lines": (1, 3), "blocks": (0,), "pairs": (2,)},
}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A BERT of two layers without dropout, and lines of very different lengths."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import BertConfig, BertForPreTraining, PreTrainedTokenizerFast

    monkeypatch.setenv("BIGFT_CACHE", str(tmp_path / "cache"))
    names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    tokenizer = Tokenizer(
        models.WordLevel({name: n for n, name in enumerate(names)}, unk_token="[UNK]")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    kinds = ("pad", "unk", "cls", "sep", "mask")
    specials = {f"{kind}_token": f"[{kind.upper()}]" for kind in kinds}
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, model_max_length=64, **specials
    ).save_pretrained(tmp_path / "model")
    torch.manual_seed(0)
    shape = {"num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}
    shape |= {"vocab_size": len(names), "hidden_size": 32, "intermediate_size": 64}
    BertForPreTraining(BertConfig(**shape)).save_pretrained(tmp_path / "model")
    source = random.Random(0)
    lines = [" ".join(source.choices(WORDS, k=length)) + "\n" for length in LENGTHS]
    (tmp_path / "lines.txt").write_text("".join(lines))
    documents = ["".join(lines[start : start + 3]) for start in range(0, len(lines), 3)]
    (tmp_path / "documents.txt").write_text("\n".join(documents))
    return tmp_path


def config(place: Path, name: str, task: dict[str, Any], **train_keys: Any) -> dict[str, Any]:
    is_of_pairs = "next_sentence_prediction" in task
    files = [str(place / ("documents.txt" if is_of_pairs else "lines.txt"))]
    by = "paragraph" if is_of_pairs else "line"
    return {
        "task": {"name": "masked-lm", **task},
        "model": {"model_name_or_path": str(place / "model"), "dropout": 0.0},
        "data": {
            "train_file": files,
            "validation_file": files,
            "sample_by": by,
            "max_seq_length": 24,
        },
        "optim": {"learning_rate": 1e-3, "adam_epsilon": 1e-5},
        "parallel": {"zero_stage": 0},
        "train": {
            "output_dir": str(place / name),
            "num_train_epochs": 2.0,
            "global_batch_size": 8,
            "per_device_eval_batch_size": 4,
            "logging_steps": 1,
            "eval_strategy": "no",
            "save_strategy": "no",
            **train_keys,
        },
    }


def weights(place: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(place / name / "model" / "model.safetensors")


def test_layouts_and_stages_draw_the_same_masks_and_train_the_same(place: Path) -> None:
    references: dict[str, tuple[str, Any, Any]] = {}
    for layout, (ranks, micro) in LAYOUTS.items():
        configs, names = [], []
        for kind, stages in CELLS[layout].items():
            for stage in stages:
                names.append((f"{kind}-{layout}-zero{stage}", kind))
                keys = {"per_device_train_batch_size": micro}
                one = config(place, names[-1][0], KINDS[kind], **keys)
                configs.append(one | {"parallel": {"zero_stage": stage}})
        for (name, kind), (events, results) in zip(
            names, run_ranks(train, ranks, configs)[0], strict=True
        ):
            steps = [event for event in events if event["event"] == "log"]
            reference, first, expected = references.setdefault(kind, (name, steps, results))
            for ours, theirs in zip(steps, first, strict=True):
                # The same masks: as many targets in each step, and the same loss of them.
                assert ours["num_targets"] == theirs["num_targets"], name
                assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5, nan_ok=True), name
            for score in expected:
                if score.startswith("eval_") and not score.endswith(("runtime", "per_second")):
                    assert results[score] == pytest.approx(expected[score], rel=1e-5), (name, score)
            theirs_by_name = weights(place, reference)
            for key, tensor in weights(place, name).items():
                if not key.endswith("key.bias"):  # whose gradient is rounding noise
                    error = (tensor - theirs_by_name[key]).norm() / theirs_by_name[key].norm()
                    assert error <= 1e-5, (name, key)
    assert "eval_next_sentence_accuracy" in references["pairs"][2]
    for kind, (_, steps, _) in references.items():
        counts = [step["num_targets"] for step in steps]
        assert len({*counts}) > 2, kind  # they are drawn, and anew in the second epoch


def test_of_some_rows_no_token_is_masked_and_the_counts_are_exact(place: Path) -> None:
    """Or the test above would not see how such rows are counted."""
    run = prepare(RunConfig.model_validate(config(place, "unused", LINES)))
    rows = [run.splits["train"].row(number) for number in range(len(LENGTHS))]
    drawn = [
        run.task.collate([replace(row, draw=address(42, "row", 0, number, 0))]).num_targets
        for number, row in enumerate(rows)
    ]
    assert drawn.count(0) > 5
    assert all(count <= row.num_targets for count, row in zip(drawn, rows, strict=True))


def test_a_run_that_is_killed_is_the_run_that_was_not_to_the_last_bit(place: Path) -> None:
    def run(name: str) -> dict[str, Any]:
        keys = {
            "eval_strategy": "steps",
            "eval_steps": 3,
            "save_strategy": "steps",
            "save_steps": 2,
            "per_device_train_batch_size": 1,
            "logging_steps": 3,
            "global_batch_size": 4,
            "max_steps": 10,
        }
        one = config(place, name, LINES | {"masking": "whole_word"}, **keys)
        one["model"]["dropout"] = 0.1
        return one | {"parallel": {"zero_stage": 2}}

    finish(run("whole"))
    with Ranks(run("killed"), failpoints="train.step=kill@8") as ranks:
        assert ranks.wait() == [-9, -9], ranks.output()
    finish(resumed(run("killed")))
    assert_same(left_by(run("killed")), left_by(run("whole")))
    assert logged_steps(run("killed")) == [3, 6, 9, 10]


def test_another_task_begins_with_the_model_of_a_run_and_goes_on_after_a_kill(place: Path) -> None:
    steps = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    finish(config(place, "adapted", LINES, per_device_train_batch_size=8, **steps), 1)
    rows = [
        {"tokens": WORDS[n : n + 4], "ner_tags": ["O", "B-A", "I-A", "O"]} for n in range(0, 40, 4)
    ]
    (place / "tags.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tagged = {
        "task": {"name": "token-classification"},
        "model": {"model_name_or_path": str(place / "adapted")},
        "data": {"train_file": [str(place / "tags.jsonl")]},
        "optim": {"learning_rate": 0.0},  # what is left is what it began with
        "train": {"output_dir": str(place / "tagged"), "global_batch_size": 4, **steps},
    }
    with Ranks(tagged, 1, failpoints="train.step=kill@4") as ranks:
        assert ranks.wait() == [-9], ranks.output()
    finish(resumed(tagged), 1)
    adapted, kept = weights(place, "adapted"), weights(place, "tagged")
    shared = [name for name in kept if name.startswith("bert.")]
    assert len(shared) > 30
    assert all(torch.equal(kept[name], adapted[name]) for name in shared)
    stored = yaml.safe_load((place / "tagged" / "config.yaml").read_text())
    assert stored["model"]["model_name_or_path"] == str(place / "adapted" / "model")
