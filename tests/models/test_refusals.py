"""What is wrong with files that cannot be used is told by its cause."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from models.stored import CAUSAL, TOKENS, Weights, refusal, renamed, save, with_, without
from tiny import LABELS, tiny_model


def prefixed(prefix: str) -> Callable[[Weights], None]:
    def change(weights: Weights) -> None:
        for name in [*weights]:
            weights[prefix + name] = weights.pop(name)

    return change


EXPERT = "model.layers.1.block_sparse_moe.experts.3"


@pytest.mark.parametrize(
    "lacking", [["w1"], ["w2"], ["w1", "w3"], ["w1", "w2", "w3"]], ids=lambda names: "+".join(names)
)
def test_an_expert_of_which_a_part_is_missing_is_named(lacking: list[str], tmp_path: Path) -> None:
    names = [f"{EXPERT}.{name}.weight" for name in lacking]
    said = refusal(save(tmp_path, "mixtral", without(*names)), CAUSAL)
    start = f"model.model_name_or_path: the weights of {str(tmp_path)!r} lack "
    assert said.startswith(start)
    assert all(name in said for name in names)
    assert said.count(".weight") == len(names)


@pytest.mark.parametrize(
    ("name", "change", "part", "example"),
    [
        ("llama", prefixed("module."), "module.", "module.lm_head.weight"),
        ("mixtral", prefixed("_orig_mod."), "_orig_mod.", "_orig_mod.lm_head.weight"),
        ("llama", renamed(("model.", "model._orig_mod.")), "_orig_mod.",
         "model._orig_mod.embed_tokens.weight"),
        ("bert", prefixed("base_model.model."), "base_model.model.",
         "base_model.model.bert.embeddings.LayerNorm.bias"),
        ("a body", prefixed("model."), "model.", "model.embeddings.LayerNorm.bias"),
    ],
)  # fmt: skip
def test_a_part_of_the_names_that_a_wrapper_left_is_named(
    name: str, change: Callable[[Weights], Any], part: str, example: str, tmp_path: Path
) -> None:
    auto_class, labels = (CAUSAL, None) if name in ("llama", "mixtral") else (TOKENS, LABELS)
    said = refusal(save(tmp_path, name, change), auto_class, labels)
    assert f"have {part!r} too much in their names, as {example}; rename them" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    "change",
    [
        with_("model.layers.0.self_attn.q_proj.lora_A.weight"),
        renamed(("q_proj.weight", "q_proj.base_layer.weight")),
        with_("base_model.model.model.layers.0.self_attn.q_proj.lora_B.default.weight",
              "model.layers.0.self_attn.q_proj.lora_A.default.weight"),
    ],
)  # fmt: skip
def test_an_adapter_in_the_weights_of_its_base_is_to_be_merged(
    change: Callable[[Weights], Any], tmp_path: Path
) -> None:
    said = refusal(save(tmp_path, "llama", change), CAUSAL)
    assert "hold an adapter of peft beside its base's: " in said
    assert said.endswith("save_pretrained what merge_and_unload() returns")


@pytest.mark.parametrize(
    ("change", "file", "what"),
    [
        (lambda data: data[:-100], "model.safetensors", "truncated or damaged (Safet"),
        (lambda data: b"<html>404</html>", "model.safetensors", "truncated or damaged (Safet"),
        (lambda data: b"", "model.safetensors", "truncated or damaged (Safet"),
        (lambda data: data[:-9], "model-00002-of-00003.safetensors", "truncated or damaged (Safet"),
        (lambda data: data[:50], "model.safetensors.index.json", "truncated or damaged ("),
    ],
)
def test_a_damaged_file_is_named(
    change: Callable[[bytes], bytes], file: str, what: str, tmp_path: Path
) -> None:
    options = {} if file == "model.safetensors" else {"max_shard_size": "20KB"}
    tiny_model("llama", CAUSAL).save_pretrained(tmp_path, **options)
    path = tmp_path / file
    path.write_bytes(change(path.read_bytes()))
    said = refusal(tmp_path, CAUSAL)
    assert said.startswith(f"{path}: {what}")
    assert said.endswith("; fetch or copy it again")


def test_a_file_that_the_index_names_and_that_is_not_there_is_named(tmp_path: Path) -> None:
    tiny_model("llama", CAUSAL).save_pretrained(tmp_path, max_shard_size="20KB")
    (tmp_path / "model-00002-of-00003.safetensors").unlink()
    what = "names model-00002-of-00003.safetensors, which is not there; fetch or copy it"
    assert refusal(tmp_path, CAUSAL) == f"{tmp_path / 'model.safetensors.index.json'}: {what}"


@pytest.mark.parametrize(
    ("name", "overrides", "key", "stored"),
    [
        ("llama", {"attention_dropout": 0.1, "hidden_size": 32}, "hidden_size: 32", 16),
        ("llama", {"num_attention_heads": 3}, "num_attention_heads: 3", 2),
        ("llama", {"num_hidden_layers": 3}, "num_hidden_layers: 3", 2),
        ("bert", {"intermediate_size": 48}, "intermediate_size: 48", 32),
    ],
)
def test_an_override_that_does_not_fit_the_weights_is_named_with_the_stored_value(
    name: str, overrides: dict[str, Any], key: str, stored: int, tmp_path: Path
) -> None:
    auto_class, labels = (CAUSAL, None) if name == "llama" else (TOKENS, LABELS)
    said = refusal(save(tmp_path, name), auto_class, labels, config_overrides=overrides)
    start = f"model.config_overrides.{key}, where config.json says {stored}: the weights of "
    assert said.startswith(start)
    assert said.endswith("; leave it out, or set model.from_scratch")
    assert len(said.splitlines()) == 1


def test_overrides_are_not_blamed_for_what_the_files_lack_anyway(tmp_path: Path) -> None:
    directory = save(tmp_path, "llama", without("model.norm.weight"))
    said = refusal(directory, CAUSAL, config_overrides={"attention_dropout": 0.1})
    assert said.startswith("model.model_name_or_path: ")
