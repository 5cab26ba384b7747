"""Files of a model that say nothing that can be used are refused by what they are."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny import save_tiny

from bigft.config.errors import BadInput
from bigft.config.sections import ModelConfig
from bigft.models.load import load_model, load_model_config


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
