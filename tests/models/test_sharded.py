"""A model that is born sharded is the whole one to the last bit, and refused where that is."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed.ranks import run_ranks
from distributed.sharded_runs import Loaded, Source, load_both_ways
from safetensors.torch import load_file, save_file
from tiny import LABELS, tiny_model
from transformers import (
    MixtralConfig,
    MixtralForCausalLM,
    PreTrainedModel,
    ResNetConfig,
    ResNetForImageClassification,
    T5Config,
    T5ForConditionalGeneration,
)

pytestmark = pytest.mark.distributed

RANKS = 3  # divides no size of the tiny models: shares end in padding
CAUSAL, TOKENS = "AutoModelForCausalLM", "AutoModelForTokenClassification"


def perturbed(model: PreTrainedModel) -> PreTrainedModel:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


def names(labels: list[str]) -> dict[str, Any]:
    return {"id2label": dict(enumerate(labels))}


def t5() -> PreTrainedModel:
    shape = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
    config = T5Config(vocab_size=260, decoder_start_token_id=0, **shape)
    return perturbed(T5ForConditionalGeneration(config))


def mixtral() -> PreTrainedModel:
    config = MixtralConfig(
        vocab_size=260,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        num_local_experts=4,
    )
    return perturbed(MixtralForCausalLM(config))


def resnet() -> PreTrainedModel:
    config = ResNetConfig(embedding_size=8, hidden_sizes=[8, 8], depths=[1, 1], num_labels=3)
    model = perturbed(ResNetForImageClassification(config))
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    return model


def rewrite(directory: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    path = directory / "model.safetensors"
    weights = load_file(path)
    change(weights)
    save_file(weights, path, {"format": "pt"})


def with_head(directory: Path, factor: float) -> None:
    """Stores the tied head too: the embedding times a factor."""

    def change(weights: dict[str, torch.Tensor]) -> None:
        weights["lm_head.weight"] = weights["model.embed_tokens.weight"] * factor

    rewrite(directory, change)


def without(directory: Path, name: str) -> None:
    def change(weights: dict[str, torch.Tensor]) -> None:
        del weights[name]

    rewrite(directory, change)


def one_more(directory: Path, name: str) -> None:
    rewrite(directory, lambda weights: weights.update({name: torch.ones(2)}))


def quantised(directory: Path) -> None:
    path = directory / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"] = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    path.write_text(json.dumps(config))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Loaded]]:
    """By case, what each rank found; all in one launch."""
    root = tmp_path_factory.mktemp("models")

    def save(name: str, model: PreTrainedModel, **options: Any) -> str:
        model.save_pretrained(root / name, **options)
        return str(root / name)

    torch.manual_seed(0)
    llama = save("llama", tiny_model("llama", CAUSAL))
    bert = save("bert", tiny_model("bert"))
    pixels = {"pixel_values": torch.rand(1, 3, 32, 32).tolist()}
    both = {"decoder_input_ids": [[0, 9]], "input_ids": [[4, 5, 6]]}
    cases = {
        "untied": Source(llama, CAUSAL),
        "tied": Source(save("qwen2", tiny_model("qwen2", CAUSAL)), CAUSAL),
        "several files": Source(
            save("split", tiny_model("llama", CAUSAL), max_shard_size="10KB"), CAUSAL
        ),
        "Conv1D": Source(save("gpt2", tiny_model("gpt2", CAUSAL)), CAUSAL),
        "its own head": Source(bert, TOKENS, {"num_labels": len(LABELS)}),
        "a head for other labels": Source(bert, TOKENS, {"num_labels": 7}),
        "labels in another order": Source(bert, TOKENS, names([*reversed(LABELS)])),
        "some new labels": Source(bert, TOKENS, names(["X", *LABELS[1:4], "Y", "Z"])),
        "as many other labels": Source(bert, TOKENS, names(["a", "b", "c", "d", "e"])),
        "a bare body": Source(save("body", tiny_model("bert").bert), TOKENS, {"num_labels": 3}),
        "another head": Source(llama, TOKENS, {"num_labels": 3}),
        "an encoder-decoder": Source(save("t5", t5()), "AutoModelForSeq2SeqLM", inputs=both),
        "stacked experts": Source(save("mixtral", mixtral()), CAUSAL),
        "buffers that are stored": Source(
            save("resnet", resnet()), "AutoModelForImageClassification", inputs=pixels
        ),
        "bf16 in the file": Source(save("half", tiny_model("llama", CAUSAL).bfloat16()), CAUSAL),
        "bf16 in training": Source(llama, CAUSAL, train={"bf16": True}),
    }
    for name in ("untied", "tied", "Conv1D", "a head for other labels", "an encoder-decoder",
                 "stacked experts", "bf16 in the file"):  # fmt: skip
        cases[f"{name}, drawn"] = cases[name]._replace(from_scratch=True)
    for name, change in {
        "a tied head stored again": lambda directory: with_head(directory, 1.0),
        "a tied head that differs": lambda directory: with_head(directory, 2.0),
        "a missing layer": lambda directory: without(directory, "model.norm.weight"),
        "a layer too many": lambda directory: one_more(directory, "model.layers.2.mlp.up.weight"),
        "quantised weights": quantised,
    }.items():
        directory = save(name, tiny_model("qwen2", CAUSAL))
        change(Path(directory))
        cases[name] = Source(directory, CAUSAL)
    ranks = run_ranks(load_both_ways, RANKS, list(cases.values()))
    seen = ([Loaded(*answer) for answer in answers] for answers in zip(*ranks, strict=True))
    return dict(zip(cases, seen, strict=True))


SAME = [
    *("untied", "tied", "several files", "Conv1D", "its own head", "a head for other labels"),
    *("a bare body", "another head", "an encoder-decoder", "stacked experts", "bf16 in the file"),
    *("labels in another order", "some new labels", "as many other labels"),
    *("buffers that are stored", "bf16 in training", "a tied head stored again"),
    *("a tied head that differs", "untied, drawn", "tied, drawn", "Conv1D, drawn"),
    *("a head for other labels, drawn", "an encoder-decoder, drawn", "stacked experts, drawn"),
    "bf16 in the file, drawn",
]


@pytest.mark.parametrize("case", SAME)
def test_names_values_logits_and_random_state_are_those_of_the_whole_model(
    case: str, loaded: dict[str, list[Loaded]]
) -> None:
    assert [rank.differences for rank in loaded[case]] == [[]] * RANKS


@pytest.mark.parametrize("case", SAME)
def test_every_rank_holds_its_share_alone(case: str, loaded: dict[str, list[Loaded]]) -> None:
    for rank in loaded[case]:
        assert rank.total / RANKS <= rank.share <= 1.1 * rank.total / RANKS


def test_ties_are_kept(loaded: dict[str, list[Loaded]]) -> None:
    tied = {case: loaded[case][0].tied for case in SAME}
    assert tied["untied"] == tied["a tied head that differs"] == 0
    assert tied["tied"] == tied["tied, drawn"] == tied["a tied head stored again"] == 1
    assert tied["an encoder-decoder"] == 3


def test_weights_that_do_not_fit_are_refused_as_for_the_whole_model(
    loaded: dict[str, list[Loaded]],
) -> None:
    for case, misfit in {
        "a missing layer": "model.norm.weight (missing)",
        "a layer too many": "model.layers.2.mlp.up.weight (without a place)",
    }.items():
        for rank in loaded[case]:
            whole, sharded = rank.refusals
            assert whole == sharded
            assert f"do not fit its config: {misfit}" in sharded


def test_quantised_weights_are_refused_with_the_alternative(
    loaded: dict[str, list[Loaded]],
) -> None:
    for rank in loaded["quantised weights"]:
        whole, sharded = rank.refusals
        assert whole == sharded
        assert "are quantised already (bitsandbytes); name the model" in sharded
