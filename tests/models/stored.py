"""Models whose stored weights were changed, and what is said when they are loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import tiny_config, tiny_model
from transformers import (
    BertForMaskedLM,
    BertModel,
    MixtralForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from bigft.config.errors import BadInput
from bigft.config.sections import ModelConfig
from bigft.models.load import load_model, load_model_config

Weights = dict[str, torch.Tensor]
CAUSAL, SEQ2SEQ = "AutoModelForCausalLM", "AutoModelForSeq2SeqLM"
TOKENS, MASKED = "AutoModelForTokenClassification", "AutoModelForMaskedLM"
GROUPED = {"num_key_value_heads": 1}


def t5() -> PreTrainedModel:
    shape = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    options = {"vocab_size": 260, "decoder_start_token_id": 0}
    return T5ForConditionalGeneration(T5Config(**shape, **options))


def mixtral() -> PreTrainedModel:
    options = tiny_config("llama").to_dict() | {"num_local_experts": 4, "model_type": "mixtral"}
    return MixtralForCausalLM(MixtralForCausalLM.config_class(**options))


MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "llama": lambda: tiny_model("llama", CAUSAL),
    "qwen2": lambda: tiny_model("qwen2", CAUSAL),  # tied
    "gpt2": lambda: tiny_model("gpt2", CAUSAL),
    "bert": lambda: tiny_model("bert"),
    "a body": lambda: tiny_model("bert").bert,
    "a body with a pooler": lambda: BertModel(tiny_config("bert")),
    "a masked LM": lambda: BertForMaskedLM(tiny_config("bert")),
    "t5": t5,
    "mixtral": mixtral,
}


def load(
    directory: Path, auto_class: str, labels: list[str] | None = None, **keys: Any
) -> PreTrainedModel:
    section = ModelConfig.model_validate({"model_name_or_path": str(directory), **keys})
    names = {} if labels is None else {"id2label": dict(enumerate(labels))}
    return load_model(section, load_model_config(section, **names), auto_class, device="meta")


def save(directory: Path, name: str, change: Callable[[Weights], Any] = len, **keys: Any) -> Path:
    """The directory with a model whose stored weights and config were changed."""
    MODELS[name]().save_pretrained(directory)
    weights = load_file(directory / "model.safetensors")
    change(weights)
    save_file(weights, directory / "model.safetensors", {"format": "pt"})
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | keys))
    return directory


def refusal(*args: Any, **keys: Any) -> str:
    with pytest.raises(BadInput) as caught:
        load(*args, **keys)
    return str(caught.value)


def without(*names: str) -> Callable[[Weights], None]:
    def change(weights: Weights) -> None:
        for name in names:
            del weights[name]

    return change


def with_(*names: str) -> Callable[[Weights], None]:
    return lambda weights: weights.update({name: torch.ones(2) for name in names})


def renamed(*pairs: tuple[str, str]) -> Callable[[Weights], None]:
    def change(weights: Weights) -> None:
        for name in [*weights]:
            new = name
            for old, other in pairs:
                new = new.replace(old, other)
            weights[new] = weights.pop(name)

    return change
