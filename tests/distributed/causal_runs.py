"""Small runs of `task: causal-lm`, every layout and stage of them: what the tests and
benchmarks/equivalence_table.py compare."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from distributed.scenarios import train
from safetensors.torch import load_file

from bigft.runtime.process_group import World
from bigft.tasks.causal_lm import batch
from bigft.training import fit

# (ranks, rows of a micro-batch): each makes steps of 8 samples.
LAYOUTS = {"1x8": (1, 8), "1x2x4": (1, 2), "2x2x2": (2, 2), "4x2": (4, 2)}
STAGES = (0, 1, 2, 3)
METHODS: dict[str, dict[str, Any]] = {
    "full": {"method": "full"},
    "lora": {"method": "lora", "r": 4, "lora_alpha": 8},
}
LEARNING_RATES = {"full": 1e-3, "lora": 1e-2}
# Of the samples: from 1 to 200, no multiple of a step's 8, two epochs.
TARGETS = [
    *(1, 200, 2, 1, 45, 3, 1, 1, 90, 2, 7, 1, 130, 1, 1, 12, 2, 30),
    *(1, 4, 1, 60, 2, 1, 18, 1, 9, 1, 25, 2, 1, 150, 1, 3, 1, 5),
]
CAPACITY = 256  # of a packed row
WORDS = [f"word{number}" for number in range(200)]


class Cell(NamedTuple):
    layout: str
    stage: int
    packing: bool
    method: str

    @property
    def reference(self) -> Cell:
        """What it is compared with: one rank, one micro-batch, nothing sharded or packed."""
        return Cell("1x8", 0, False, self.method)


class Seen(NamedTuple):
    """Of one run: the loss of each step, and what it left in model/."""

    losses: list[float]
    weights: dict[str, torch.Tensor]


def save_model(directory: Path) -> None:
    """A Llama of two layers, and a tokenizer of whole words. An answer ends with its last word: one
    of a single word is a single target."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = {token: n for n, token in enumerate(["<pad>", "<unk>", "<eos>", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        unk_token="<unk>",
        eos_token="<eos>",
        chat_template="{% for message in messages %}{{ message['content'] }} {% endfor %}",
    ).save_pretrained(directory)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=CAPACITY,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=2,
        initializer_range=0.1,  # so that what a token attends to matters
    )
    LlamaForCausalLM(config).save_pretrained(directory)


def write_samples(path: Path) -> None:
    """JSONL of prompt and completion, one sample per number in TARGETS; most tokens are prompt."""
    source = random.Random(0)
    with path.open("w") as file:
        for count in TARGETS:
            length = min(source.randrange(20, 180), CAPACITY - count)
            prompt, completion = (" ".join(source.choices(WORDS, k=k)) for k in (length, count))
            print(json.dumps({"prompt": prompt, "completion": completion}), file=file)


def config_of(cell: Cell, folder: Path) -> dict[str, Any]:
    """A run's config; the folder holds what save_model and write_samples made."""
    rows = LAYOUTS[cell.layout][1]
    return {
        "task": {"name": "causal-lm"},
        "model": {"model_name_or_path": str(folder / "model")},
        "data": {
            "train_file": [str(folder / "train.jsonl")],
            "max_seq_length": CAPACITY,
            "packing": cell.packing,
        },
        "adapt": METHODS[cell.method],
        "optim": {
            "learning_rate": LEARNING_RATES[cell.method],
            # Adam makes a whole step of a gradient that is nothing but rounding, unless eps is
            # above it.
            "adam_epsilon": 1e-5,
        },
        "parallel": {"zero_stage": cell.stage},
        "train": {
            "output_dir": str(folder / "-".join(map(str, cell))),
            "num_train_epochs": 2.0,
            "global_batch_size": 8,
            "per_device_train_batch_size": rows,
            "logging_steps": 1,
            "save_strategy": "no",
        },
    }


def seen(config: dict[str, Any], events: Sequence[dict[str, Any]]) -> Seen:
    """Of a run that `scenarios.train` trained."""
    (file,) = Path(config["train"]["output_dir"], "model").glob("*model.safetensors")
    losses = [event["loss"] for event in events if event["event"] == "log"]
    return Seen(losses, load_file(file))


def train_with_leaking_packs(world: World, configs: list[dict[str, Any]]) -> list[Any]:
    """The mistake that packing invites: a sample sees those before it in its row. (A run refuses to
    begin like that: its check is off here.)"""
    exact, check = batch._positions, fit.check_packing

    def through(features: Any, starts: Any, shape: tuple[int, int]) -> Any:
        return np.tile(np.arange(shape[1]), (shape[0], 1))

    batch._positions, fit.check_packing = through, lambda *_: None
    try:
        return train(world, configs)
    finally:
        batch._positions, fit.check_packing = exact, check


def loss_difference(ours: Seen, theirs: Seen) -> float:
    """The largest of all steps, relative."""
    pairs = zip(ours.losses, theirs.losses, strict=True)
    return max(abs(mine - other) / abs(other) for mine, other in pairs)


def weight_difference(ours: Seen, theirs: Seen) -> float:
    """The largest of all tensors: norm of the difference over the norm."""
    assert ours.weights.keys() == theirs.weights.keys()
    return max(
        float((tensor - theirs.weights[name]).norm() / theirs.weights[name].norm())
        for name, tensor in ours.weights.items()
    )
