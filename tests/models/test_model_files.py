"""Files of a model that say nothing that can be used are refused by what they are."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny import save_tiny

from bigft.config.errors import BadInput
from bigft.config.sections import ModelConfig
from bigft.models.limits import tokenizer_limit
from bigft.models.load import load_model, load_model_config
from bigft.models.processors import check_vocabulary, load_tokenizer


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "cannot be read ("),
        ('"x"', "cannot be read ("),
        ("null", "cannot be read ("),
        ('{"eos_token_id": 2,', "cannot be read ("),
        ("", "cannot be read ("),
        ('{"max_new_tokens": 0}', "cannot be read (`max_new_tokens` must be greater than 0"),
        ('{"eos_token_id": "</s>"}', "its eos_token_id '</s>' is none of the model's "),
        ('{"eos_token_id": [3, 999999]}', "its eos_token_id 999999 is none of the model's "),
    ],
)
def test_a_generation_config_that_says_nothing_is_refused_by_its_file(
    content: str, said: str, tmp_path: Path
) -> None:
    save_tiny(tmp_path, "llama", auto_class="AutoModelForCausalLM")
    file = tmp_path / "generation_config.json"
    file.write_text(content)
    section = ModelConfig(model_name_or_path=str(tmp_path))
    with pytest.raises(BadInput) as refused:
        load_model(section, load_model_config(section), "AutoModelForCausalLM", device="meta")
    assert str(refused.value).startswith(f"{file}: {said}")
    file.unlink()
    load_model(section, load_model_config(section), "AutoModelForCausalLM", device="meta")


def test_an_adapter_and_a_pickle_in_the_place_of_a_model_are_called_what_they_are(
    tmp_path: Path,
) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(BadInput, match="is an adapter of peft, not a model; name its base"):
        load_model_config(ModelConfig(model_name_or_path=str(tmp_path)))
    save_tiny(tmp_path / "b", "llama", auto_class="AutoModelForCausalLM")
    (tmp_path / "b" / "model.safetensors").rename(tmp_path / "b" / "pytorch_model.bin")
    section = ModelConfig(model_name_or_path=str(tmp_path / "b"))
    with pytest.raises(BadInput, match="a pickle, which may run code; load it where"):
        load_model(section, load_model_config(section), "AutoModelForCausalLM", device="meta")


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"


@pytest.mark.parametrize("name", ["generation_config.json", "chat_template.jinja"])
def test_a_pointer_in_the_place_of_a_small_file_is_called_one(name: str, tmp_path: Path) -> None:
    save_tiny(tmp_path, "llama", auto_class="AutoModelForCausalLM")
    (tmp_path / name).write_text(POINTER)
    section = ModelConfig(model_name_or_path=str(tmp_path))
    with pytest.raises(BadInput) as refused:
        load_tokenizer(section, "text")
        load_model(section, load_model_config(section), "AutoModelForCausalLM", device="meta")
    assert str(refused.value).startswith(f"{tmp_path / name}: a Git LFS pointer")
    assert str(refused.value).endswith("fetch it (git lfs pull)")


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_weights_that_are_no_plain_floats_are_quantised(dtype: Any, tmp_path: Path) -> None:
    """Whether config.json says so or not."""
    save_tiny(tmp_path, "llama", auto_class="AutoModelForCausalLM")
    file = tmp_path / "model.safetensors"
    weights = load_file(file)
    name = "model.layers.0.mlp.up_proj.weight"
    save_file(weights | {name: weights[name].to(dtype)}, file, {"format": "pt"})
    section = ModelConfig(model_name_or_path=str(tmp_path))
    with pytest.raises(BadInput, match=rf"are quantised already \({name} is stored as [IUF]8"):
        load_model(section, load_model_config(section), "AutoModelForCausalLM", device="meta")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_floats_of_any_width_are_not(dtype: Any, tmp_path: Path) -> None:
    save_tiny(tmp_path, "llama", auto_class="AutoModelForCausalLM")
    file = tmp_path / "model.safetensors"
    save_file({n: w.to(dtype) for n, w in load_file(file).items()}, file, {"format": "pt"})
    section = ModelConfig(model_name_or_path=str(tmp_path))
    load_model(section, load_model_config(section), "AutoModelForCausalLM", device="meta")


def test_a_length_that_is_no_number_and_a_pad_token_without_a_row(tmp_path: Path) -> None:
    save_tiny(tmp_path, "llama", auto_class="AutoModelForCausalLM")
    section = ModelConfig(model_name_or_path=str(tmp_path))
    tokenizer = load_tokenizer(section, "text")
    tokenizer.model_max_length = "512"
    with pytest.raises(
        BadInput, match=r"model_max_length in tokenizer_config\.json is '512', not a"
    ):
        tokenizer_limit(tokenizer)
    config = load_model_config(section)
    config.pad_token_id = 5000
    with pytest.raises(BadInput, match=r"pad_token_id 5000 of config\.json is none of the model's"):
        check_vocabulary(tokenizer, config)
