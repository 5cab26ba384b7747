"""Which layer a parameter belongs to, what is the head, and the table of what is trained."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import TypeAdapter
from tiny import ARCHITECTURES, DECODERS, letter_tokenizer, tiny_model
from transformers import T5Config, T5ForConditionalGeneration

from bigft.config.adapt import AdaptConfig
from bigft.models.adapt import adapt_model
from bigft.models.layers import frozen_digest, head_names, layer_numbers, trained_table

LANGUAGE = "AutoModelForCausalLM"
MODELS = [(name, "AutoModelForTokenClassification") for name in ARCHITECTURES]
MODELS += [(name, LANGUAGE) for name in DECODERS]


def lora(model: Any) -> Any:
    options = TypeAdapter(AdaptConfig).validate_python({"method": "lora"})
    return adapt_model(model, options, letter_tokenizer())


@pytest.mark.parametrize(("architecture", "auto_class"), MODELS)
def test_layers_are_counted_from_the_embeddings_up(architecture: str, auto_class: str) -> None:
    for model in (tiny_model(architecture, auto_class), lora(tiny_model(architecture, auto_class))):
        for name, number in layer_numbers(model).items():
            if any(part in name for part in ("layers.0.", "layer.0.", "h.0.")):
                assert number == 1, name
            elif any(part in name for part in ("layers.1.", "layer.1.", "h.1.")):
                assert number == 2, name
            elif "embed" in name or name.rpartition(".")[0].endswith(("wte", "wpe")):
                assert number == 0, name
            else:
                assert number == 3, name


def test_a_decoder_stands_on_its_encoder() -> None:
    config = T5Config(
        vocab_size=40, d_model=8, d_kv=4, d_ff=8, num_heads=2, num_layers=2, num_decoder_layers=3
    )
    numbers = layer_numbers(T5ForConditionalGeneration(config))
    assert numbers["shared.weight"] == 0
    assert numbers["encoder.block.1.layer.0.SelfAttention.q.weight"] == 2
    assert numbers["decoder.block.0.layer.0.SelfAttention.q.weight"] == 3
    assert numbers["decoder.block.2.layer.0.SelfAttention.q.weight"] == 5
    assert numbers["decoder.final_layer_norm.weight"] == 6


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_head_is_what_is_not_the_body_with_and_without_peft(architecture: str) -> None:
    model = tiny_model(architecture)
    body = f"{model.base_model_prefix}."
    expected = {name for name, _ in model.named_parameters() if not name.startswith(body)}
    assert head_names(model) == expected
    wrapped = lora(model)
    trained = {name for name, p in wrapped.named_parameters() if p.requires_grad}
    assert {name for name in trained if "modules_to_save" in name} == trained & head_names(wrapped)


@pytest.mark.parametrize("architecture", ["llama", "qwen2"])
def test_the_head_of_a_language_model_is_not_new(architecture: str) -> None:
    assert head_names(tiny_model(architecture, LANGUAGE)) == set()


def test_the_table_counts_what_is_trained_by_module() -> None:
    model = lora(tiny_model())
    lines = {line.split()[0]: line.split()[1:] for line in trained_table(model).splitlines()}
    query = "base_model.model.bert.encoder.layer.*.attention.self.query.lora_A.default"
    total = sum(parameter.numel() for parameter in model.parameters())
    assert lines[query] == ["256", f"{256 / total:.3%}"]
    assert lines["the"] == ["model", f"{total:,}"]
    trained = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert lines["all"][2:] == [f"{trained:,}", f"{trained / total:.3%}"]


def test_the_table_counts_parameters_that_are_sharded() -> None:
    model = tiny_model()
    whole = trained_table(model)
    for parameter in model.parameters():
        parameter.ds_numel = parameter.numel()
        parameter.data = torch.empty(0)
    assert trained_table(model) == whole


def test_another_base_of_the_same_shapes_is_told_by_its_frozen_weights() -> None:
    first, again = (lora(tiny_model("llama", LANGUAGE)) for _ in range(2))
    assert frozen_digest(first, 0) == frozen_digest(again, 0)
    name, weight = next((n, p) for n, p in again.named_parameters() if not p.requires_grad)
    weight.data += 1
    assert frozen_digest(first, 0) != frozen_digest(again, 0), name
    trained = next(p for p in first.parameters() if p.requires_grad)
    before = frozen_digest(first, 0)
    trained.data += 1
    assert frozen_digest(first, 0) == before
    assert frozen_digest(tiny_model("llama", LANGUAGE), 0) == "", "all of it is trained"
