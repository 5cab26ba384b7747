"""A model that was born sharded trains as one that DeepSpeed shards, and takes a rank's share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from distributed.ranks import run_ranks
from distributed.sharded_runs import Steps, Way, peak_of_loading, train_steps
from tiny import tiny_model
from transformers import LlamaConfig, LlamaForCausalLM

pytestmark = pytest.mark.distributed

LORA = {"method": "lora", "r": 4, "lora_alpha": 8}
FREEZE = {"method": "freeze", "freeze_layers": 1}
HALF, CHECKPOINTED = {"bf16": True}, {"gradient_checkpointing": True}
WAYS = {
    "full, ZeRO-2": Way(2),
    "full": Way(3, born=True),
    "full, activation checkpointing": Way(3, born=True, train=CHECKPOINTED),
    "LoRA, ZeRO-2": Way(2, adapt=LORA),
    "LoRA": Way(3, born=True, adapt=LORA),
    "LoRA, activation checkpointing": Way(3, born=True, adapt=LORA, train=CHECKPOINTED),
    "freeze, ZeRO-2": Way(2, adapt=FREEZE),
    "freeze": Way(3, born=True, adapt=FREEZE),
    "bf16, sharded later": Way(3, train=HALF),
    "bf16": Way(3, born=True, train=HALF),
    "bf16 LoRA, sharded later": Way(3, adapt=LORA, train=HALF),
    "bf16 LoRA": Way(3, born=True, adapt=LORA, train=HALF),
}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Steps]:
    directory = tmp_path_factory.mktemp("llama")
    tiny_model("llama", "AutoModelForCausalLM").save_pretrained(directory)
    answers = run_ranks(train_steps, 2, str(directory), list(WAYS.values()))[0]
    return {name: Steps(*steps) for name, steps in zip(WAYS, answers, strict=True)}


@pytest.mark.parametrize("method", ["full", "LoRA", "freeze"])
def test_it_trains_as_zero_2_does(method: str, seen: dict[str, Steps]) -> None:
    ours, theirs = seen[method], seen[f"{method}, ZeRO-2"]
    assert ours.losses == pytest.approx(theirs.losses, rel=1e-6)
    assert ours.norms == pytest.approx(theirs.norms, rel=1e-5)


@pytest.mark.parametrize("method", ["bf16", "bf16 LoRA"])
def test_in_bf16_it_trains_to_the_last_bit_as_sharded_later(
    method: str, seen: dict[str, Steps]
) -> None:
    assert seen[method] == seen[f"{method}, sharded later"]


@pytest.mark.parametrize("method", ["full", "LoRA"])
def test_activation_checkpointing_changes_nothing(method: str, seen: dict[str, Steps]) -> None:
    ours, theirs = seen[f"{method}, activation checkpointing"], seen[method]
    assert ours.losses == pytest.approx(theirs.losses, rel=1e-6)


def test_it_goes_on_from_a_checkpoint_to_the_last_bit(seen: dict[str, Steps]) -> None:
    for steps in seen.values():
        assert steps.again == steps.losses[2:]
        assert len(set(steps.losses)) == 4


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, int]:
    """160 MiB of weights in layers of 10 MiB each, and those bytes."""
    torch.manual_seed(0)
    size: dict[str, Any] = {"hidden_size": 512, "intermediate_size": 1024}
    config = LlamaConfig(vocab_size=256, num_hidden_layers=16, num_attention_heads=8, **size)
    model = LlamaForCausalLM(config)
    directory: Path = tmp_path_factory.mktemp("large")
    model.save_pretrained(directory)
    return str(directory), 4 * model.num_parameters()


def test_peak_memory_of_loading_falls_with_the_number_of_ranks(large: tuple[str, int]) -> None:
    directory, size = large

    def peak(ranks: int) -> int:
        return max(run_ranks(peak_of_loading, ranks, directory, "AutoModelForCausalLM"))

    one, four = peak(1), peak(4)
    assert one > 0.9 * size
    # What a rank does not hold is not there; an eighth is for libraries that load meanwhile.
    assert one - four > (3 / 4 - 1 / 8) * size
