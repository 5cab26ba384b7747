"""What runs of language models leave: tied weights, mixtures of experts, how an answer ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from training.adapters import finished_run
from training.language_models import MIXTURES, TIED, logits, plain, write_run

from bigft.training import export as export_module
from bigft.training.merge import export_merged

OF_THE_WEIGHTS = {"model.safetensors", "adapter_model.safetensors", "adapter_config.json",
                  "merge.json"}  # fmt: skip


def distance(ours: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((ours - theirs).abs().max() / theirs.abs().max())


def described(directory: Path) -> dict[str, Any]:
    """All that lies there beside weights, by name."""
    files = {path.name: path for path in directory.iterdir() if path.name not in OF_THE_WEIGHTS}
    return {
        name: json.loads(path.read_text()) if path.suffix == ".json" else path.read_bytes()
        for name, path in files.items()
    }


@pytest.mark.parametrize("architecture", TIED)
def test_an_adapter_on_tied_embeddings_is_merged_and_measured(
    architecture: str, here: Path
) -> None:
    write_run(here, architecture)
    directory, _, model = finished_run("adapt.method=lora")
    result = export_merged(directory, here / "merged")
    merged = plain(here / "merged", architecture)
    expected = logits(model, architecture)
    assert distance(logits(merged, architecture), expected) < 1e-5
    base = plain(here / "base", architecture)
    assert distance(logits(base, architecture), expected) > 0.01
    assert merged.get_output_embeddings().weight is merged.get_input_embeddings().weight
    assert result.difference["loss"] == pytest.approx(0, abs=1e-4)
    adapted = PeftModel.from_pretrained(base, directory.model)
    assert torch.equal(logits(adapted, architecture), expected)


@pytest.mark.parametrize("architecture", ["llama", "t5", "m2m_100"])
def test_adapter_and_merged_model_hold_what_a_full_models_directory_does(
    architecture: str, here: Path
) -> None:
    """How an answer begins and ends, the template, the tokenizer: other tools generate alike."""
    write_run(here, architecture)
    full, run, _ = finished_run("train.output_dir=full")
    adapter, *_ = finished_run("adapt.method=lora")
    export_merged(adapter, here / "merged")
    expected = described(full.model)
    assert described(adapter.model) == expected
    assert described(here / "merged") == expected
    generation = expected["generation_config.json"]
    if architecture == "llama":
        assert set(generation["eos_token_id"]) == {3, *run.task.renderer.turn_end_ids}
        assert len(generation["eos_token_id"]) > 1
    if architecture == "m2m_100":
        zho = run.processor.convert_tokens_to_ids("zho_Hans")
        assert generation["forced_bos_token_id"] == zho


@pytest.mark.parametrize("architecture", MIXTURES)
def test_experts_are_stored_one_by_one_and_compared_all_together(
    architecture: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(here, architecture)
    directory, _, model = finished_run()
    names = load_file(directory.model / "model.safetensors").keys()
    (expert,) = (name for name in names if ".0." in name and "experts.3." in name
                 and ("w2" in name or "down_proj" in name))  # fmt: skip
    loaded = plain(directory.model, architecture)
    assert torch.equal(logits(loaded, architecture), logits(model, architecture))
    check_stored = export_module.check_stored

    def tampered(place: Path, *args: Any) -> None:
        path = place / "model.safetensors"
        tensors = load_file(path)
        tensors[expert][0, 0] += 1
        save_file(tensors, path, {"format": "pt"})
        check_stored(place, *args)

    monkeypatch.setattr(export_module, "check_stored", tampered)
    with pytest.raises(RuntimeError, match=r"experts\.down_proj differs from the trained weights"):
        finished_run("train.output_dir=again")


@pytest.mark.parametrize("architecture", MIXTURES)
def test_an_adapter_on_experts_is_merged(architecture: str, here: Path) -> None:
    write_run(here, architecture)
    directory, _, model = finished_run("adapt.method=lora")
    export_merged(directory, here / "merged")
    merged = plain(here / "merged", architecture)
    assert distance(logits(merged, architecture), logits(model, architecture)) < 1e-5
