"""What is left in the end is tried before the first step: nothing trains that cannot be saved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig
from training.adapters import finished_run
from training.language_models import write_run

from bigft.config import load_config
from bigft.config.errors import BadInput
from bigft.runtime.launcher import Launch
from bigft.training import export, preflight
from bigft.training.merge import export_merged


def notes(*overrides: str) -> list[str]:
    launch = Launch.local(1)
    config = load_config("config.yaml", overrides).config
    return preflight.preflight(config, launch, here=False).notes


@pytest.mark.parametrize(
    ("architecture", "fields", "told"),
    [
        ("llama", {"do_sample": False, "temperature": 0.6, "top_p": 0.9},
         "temperature 0.6, top_p 0.9"),
        ("llama", {"pad_token_id": -1, "max_new_tokens": 9}, "pad_token_id -1"),
        ("gpt2", {"output_scores": True, "top_k": 0}, "top_k 0, output_scores True"),
        ("t5", {"early_stopping": True, "length_penalty": 2.0},
         "early_stopping True, length_penalty 2.0"),
    ],
)  # fmt: skip
def test_what_a_base_cannot_save_of_its_generation_config_is_told_and_left_out(
    architecture: str, fields: dict[str, Any], told: str, here: Path
) -> None:
    write_run(here, architecture)
    path = here / "base" / "generation_config.json"
    before = json.loads(path.read_text())
    path.write_text(json.dumps(before | fields))
    (note,) = [note for note in notes() if "generation config" in note]
    assert note == (
        f"the base's generation config has {told}, which transformers refuses to save beside its "
        "other fields: model/ is written without"
    )
    whole, *_ = finished_run("train.output_dir=full")
    adapter, *_ = finished_run("adapt.method=lora")
    export_merged(adapter, here / "merged")
    for place in (whole.model, adapter.model, here / "merged"):
        saved = json.loads((place / "generation_config.json").read_text())
        left_out = [name for name in fields if f"{name} " in told]
        assert not saved.keys() & set(left_out)
        assert saved.items() >= {k: v for k, v in fields.items() if k not in left_out}.items()
        transformers.GenerationConfig.from_pretrained(place).validate(strict=True)


@pytest.mark.parametrize("method", ["full", "head"])
def test_a_head_that_the_config_only_says_is_tied_is_saved_as_one_apart(
    method: str, here: Path
) -> None:
    """Programs that go by the config would leave out what was trained."""
    write_run(here, "llama")
    path = here / "base" / "config.json"
    untied = json.loads(path.read_text()) | {"tie_word_embeddings": False}
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**untied)).save_pretrained(here / "base")
    path.write_text(json.dumps(untied | {"tie_word_embeddings": True}))
    assert [note for note in notes() if "says tie_word_embeddings: true" in note]
    run, *_ = finished_run(f"adapt.method={method}")
    assert json.loads((run.model / "config.json").read_text())["tie_word_embeddings"] is False
    again = transformers.AutoModelForCausalLM.from_pretrained(run.model)
    assert not torch.equal(again.lm_head.weight, again.model.embed_tokens.weight)


def test_a_head_that_is_tied_stays_so(here: Path) -> None:
    write_run(here, "llama")
    assert not [note for note in notes() if "tie_word_embeddings" in note]
    run, *_ = finished_run()
    assert json.loads((run.model / "config.json").read_text())["tie_word_embeddings"] is True


def test_a_generation_config_that_can_be_saved_is_saved_as_it_is(here: Path) -> None:
    write_run(here, "llama")
    path = here / "base" / "generation_config.json"
    fields = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.1}
    path.write_text(json.dumps(fields))
    assert not [note for note in notes() if "generation config" in note]
    directory, *_ = finished_run()
    assert json.loads((directory.model / path.name).read_text()).items() >= fields.items()


def test_a_config_that_transformers_refuses_to_save_is_refused_before_training(
    here: Path,
) -> None:
    """Such a model can be built and trained: three heads of 8 are 24 of its width of 16."""
    write_run(here, "llama")
    overrides = "model.config_overrides={num_attention_heads: 3, head_dim: 8}"
    with pytest.raises(BadInput) as caught:
        notes("model.from_scratch=true", overrides)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(
        "model.model_name_or_path: it could be trained, but not saved (StrictDataclass"
    )
    assert "hidden size (16) is not a multiple of the number of attention heads (3)" in line


def test_a_tokenizer_or_adapter_that_cannot_be_saved_is_refused_before_training(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(here, "t5")

    def fails(*args: Any, **options: Any) -> None:
        raise TypeError("Object of type set is not\nJSON serializable")

    for of, asked in (
        (transformers.PreTrainedTokenizerBase, "adapt.method=full"),
        (LoraConfig, "adapt.method=lora"),
    ):
        with monkeypatch.context() as patched:
            patched.setattr(of, "save_pretrained", fails)
            with pytest.raises(BadInput, match=r"\(TypeError: Object of type set is not JSON ser"):
                notes(asked)
        notes(asked)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_no_weight_is_written_to_try_it(
    method: str, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_run(here, "llama")
    written: dict[str, int] = {}

    def watched(*args: Any) -> None:
        export.write_model(*args)
        written.update({path.name: path.stat().st_size for path in args[-1].iterdir()})

    monkeypatch.setattr(preflight, "write_model", watched)
    notes(f"adapt.method={method}")
    assert written.keys() >= {"config.json", "generation_config.json", "tokenizer.json"}
    assert sum(size for name, size in written.items() if name.endswith("safetensors")) < 100
    assert [path.name for path in here.iterdir() if path.name.startswith("out")] == []


def test_an_adapter_on_experts_is_refused_before_training_where_it_is_to_be_sharded(
    here: Path,
) -> None:
    write_run(here, "mixtral")
    with pytest.raises(
        BadInput, match=r"^adapt.target_modules: takes in .* parallel.zero_stage 3;"
    ):
        notes("adapt.method=lora", "parallel.zero_stage=3")
    notes("adapt.method=lora", "parallel.zero_stage=2")
    notes("adapt={method: lora, target_modules: [q_proj]}", "parallel.zero_stage=3")
