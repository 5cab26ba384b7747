"""Each way to adapt trains the parameters it says, and plain peft finds all of them again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import PeftModel
from pydantic import TypeAdapter
from tiny import ARCHITECTURES, letter_tokenizer, save_tiny, tiny_model
from tiny_seq2seq import tiny_seq2seq
from training.language_models import mixture

from bigft.config.adapt import AdaptConfig
from bigft.config.errors import BadInput
from bigft.config.sections import ModelConfig
from bigft.models.adapt import (
    ADAPTERS,
    adapt_model,
    check_shardable,
    freezes_base,
    is_peft,
    load_options,
)
from bigft.models.cpu_bf16 import keep_4bit_weights
from bigft.models.layers import head_modules
from bigft.models.load import load_model, load_model_config
from bigft.models.processors import load_tokenizer

TOKENS = "AutoModelForTokenClassification"
LANGUAGE = "AutoModelForCausalLM"
IDS_BT = torch.arange(4, 22).view(2, 9)
ALL_OF_PEFT = [name for name, adapter in ADAPTERS.items() if adapter.is_peft]
# bigft's rules refuse a prefix for token classification: only its own forward would answer.
PLACES = [(method, "llama", LANGUAGE) for method in ALL_OF_PEFT]
PLACES += [(method, "bert", TOKENS) for method in ALL_OF_PEFT if method != "prefix"]
PLACES += [(method, "bert", "AutoModelForMaskedLM") for method in ALL_OF_PEFT]


def options(method: str, **keys: Any) -> Any:
    return TypeAdapter(AdaptConfig).validate_python({"method": method, **keys})


def adapted(model: Any, method: str, **keys: Any) -> Any:
    return adapt_model(model, options(method, **keys), letter_tokenizer())


def language_model(architecture: str = "llama") -> Any:
    return tiny_model(architecture, LANGUAGE)


def trained(model: Any) -> set[str]:
    return {name for name, parameter in model.named_parameters() if parameter.requires_grad}


def refusal(model: Any, method: str, **keys: Any) -> list[str]:
    with pytest.raises(BadInput) as caught:
        adapted(model, method, **keys)
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("targets", "bare"),
    [
        ("all-linear", "model.layers.0.mlp.gate.weight and 5 more"),
        (".*(q_proj|w2)", "model.layers.0.mlp.experts.down_proj and 1 more"),
        (["q_proj", "gate"], "model.layers.0.mlp.gate.weight and 1 more"),
    ],
)
def test_an_adapter_on_bare_parameters_is_refused_under_zero_3(targets: Any, bare: str) -> None:
    modules = "k_proj, o_proj, q_proj, v_proj" if targets == "all-linear" else "q_proj"
    model = adapted(mixture("mixtral"), "lora", target_modules=targets)
    with pytest.raises(BadInput) as caught:
        check_shardable(model)
    assert str(caught.value) == (
        f"adapt.target_modules: takes in {bare}, parameters that are no linear modules, which peft "
        f"cannot train at parallel.zero_stage 3; name modules alone ([{modules}]), or set "
        "parallel.zero_stage to 2"
    )


def test_an_adapter_on_modules_may_be_sharded() -> None:
    check_shardable(adapted(mixture("mixtral"), "lora", target_modules=["q_proj", "v_proj"]))
    check_shardable(adapted(mixture("mixtral"), "prompt"))
    check_shardable(adapted(language_model(), "lora"))
    check_shardable(adapted(language_model(), "full"))


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        answer = model.eval()(input_ids=IDS_BT, attention_mask=torch.ones_like(IDS_BT))
    return answer.logits


def loaded(directory: Path, auto_class: str, method: str, **keys: Any) -> Any:
    """As a run loads its base."""
    section = ModelConfig.model_validate({"model_name_or_path": str(directory)})
    extra = load_options(options(method, **keys), "float32")
    return load_model(section, load_model_config(section), auto_class, **extra)


# -- without peft -------------------------------------------------------------------------------


def test_full_trains_every_parameter_even_one_that_came_frozen() -> None:
    model = tiny_model()
    for parameter in model.base_model.parameters():
        parameter.requires_grad_(False)
    assert adapted(model, "full") is model
    assert all(parameter.requires_grad for parameter in model.parameters())


@pytest.mark.parametrize(
    ("architecture", "auto_class", "expected"),
    [
        ("bert", TOKENS, {"classifier.weight", "classifier.bias"}),
        ("llama", LANGUAGE, {"lm_head.weight"}),
    ],
)
def test_head_trains_what_is_not_the_body(
    architecture: str, auto_class: str, expected: set[str]
) -> None:
    assert trained(adapted(tiny_model(architecture, auto_class), "head")) == expected


def test_a_head_that_is_the_embeddings_cannot_be_trained_alone() -> None:
    (line,) = refusal(language_model("qwen2"), "head")
    assert line.startswith("adapt.method: nothing is trained: the head's weights are those of the")


def test_freeze_leaves_embeddings_first_layers_and_patterns_as_they_are() -> None:
    model = adapted(tiny_model(), "freeze", freeze_layers=1, freeze_patterns=["attention"])
    names = dict(tiny_model().named_parameters())
    assert trained(model) == {
        name
        for name in names
        if "embeddings" not in name and "layer.0." not in name and "attention" not in name
    }
    kept = trained(adapted(tiny_model(), "freeze", freeze_embeddings=False, freeze_layers=2))
    assert kept == {name for name in names if "encoder" not in name}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"freeze_layers": 3}, "adapt.freeze_layers: 3, but the model has 2 layers; freeze fewer"),
        ({"freeze_patterns": ["atention"]},
         "adapt.freeze_patterns: 'atention' matches no parameter; names are like "
         "bert.embeddings.word_embeddings.weight"),
        ({"freeze_patterns": ["a("]}, "adapt.freeze_patterns: 'a(' is no regular expression ("),
        ({"freeze_patterns": ["."]}, "adapt.method: nothing is trained: every parameter is frozen"),
    ],
)  # fmt: skip
def test_what_freeze_cannot_do_is_refused(keys: dict[str, Any], message: str) -> None:
    (line,) = refusal(tiny_model(), "freeze", **keys)
    assert line.startswith(message)


# -- with peft ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "architecture", "auto_class"), PLACES)
def test_plain_peft_answers_with_the_same_logits(
    method: str, architecture: str, auto_class: str, tmp_path: Path
) -> None:
    save_tiny(tmp_path / "base", architecture, auto_class=auto_class)
    base = loaded(tmp_path / "base", auto_class, method)
    before = logits(base)
    model = adapted(base, method)
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    expected = logits(model)
    model.save_pretrained(tmp_path / "adapter")
    quantised = load_options(options(method), "float32")
    if quantised:
        quantised["quantization_config"].llm_int8_skip_modules = head_modules(model) or None
    plain = getattr(transformers, auto_class).from_pretrained(tmp_path / "base", **quantised)
    keep_4bit_weights(plain)  # or bitsandbytes itself computes in bf16 on some CPUs
    answer = logits(PeftModel.from_pretrained(plain, tmp_path / "adapter"))
    assert torch.equal(answer, expected)
    assert not torch.allclose(answer[:, -9:], before, atol=1e-2)
    peft_config = PeftModel.from_pretrained(plain, tmp_path / "adapter").active_peft_config
    assert peft_config.base_model_name_or_path == str(tmp_path / "base")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_new_head_is_trained_and_saved_in_every_architecture(
    architecture: str, tmp_path: Path
) -> None:
    """All of it: what is not in the adapter would be random again when it is loaded."""
    base = tiny_model(architecture)
    body = f"{base.base_model_prefix}."
    head = {name for name, _ in base.named_parameters() if not name.startswith(body)}
    model = adapted(base, "lora")
    copies = {
        name.replace("base_model.model.", "").replace("modules_to_save.default.", "")
        for name in trained(model)
        if "modules_to_save" in name
    }
    assert copies == head
    assert "lora_" in "".join(trained(model))
    assert not any("lora_" in name for name in trained(model) if "modules_to_save" in name)


# A prefix is refused by a rule: it needs the cache that checkpointing does without.
@pytest.mark.parametrize("method", sorted({*ALL_OF_PEFT, "head", "freeze"} - {"prefix"}))
def test_gradients_arrive_through_checkpoints_of_a_frozen_base(method: str, tmp_path: Path) -> None:
    save_tiny(tmp_path, "llama", auto_class=LANGUAGE)
    gradients = []
    for checkpointing in (False, True):
        model = loaded(tmp_path, LANGUAGE, method).train()
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model.config.use_cache = False
        torch.manual_seed(0)
        model = adapted(model, method)
        model(input_ids=IDS_BT).logits.square().mean().backward()
        gradients.append({name: model.get_parameter(name).grad for name in trained(model)})
    plain, checkpointed = gradients
    for name, gradient in plain.items():
        torch.testing.assert_close(checkpointed[name], gradient, rtol=1e-5, atol=1e-7, msg=name)
    assert any(gradient.abs().max() > 0 for gradient in plain.values())


def test_a_4_bit_base_keeps_its_head_in_full(tmp_path: Path) -> None:
    save_tiny(tmp_path, "modernbert")
    base = loaded(tmp_path, TOKENS, "qlora")
    kinds = {name: type(module).__name__ for name, module in base.named_modules()}
    assert kinds["classifier"] == kinds["head.dense"] == "Linear"
    assert kinds["model.layers.0.attn.Wqkv"] == "Linear4bit"


def test_an_evaluation_leaves_a_4_bit_base_as_training_has_it(tmp_path: Path) -> None:
    """Fails only on CPUs with AVX512_BF16, for which bitsandbytes has a layout of its own."""
    save_tiny(tmp_path, auto_class=LANGUAGE, architecture="llama", hidden_size=64)
    base = loaded(tmp_path, LANGUAGE, "qlora")
    weight = base.model.layers[0].mlp.up_proj.weight
    before = weight.data.clone()
    with torch.no_grad():
        training = base.train()(input_ids=IDS_BT, attention_mask=torch.ones_like(IDS_BT)).logits
    assert torch.equal(logits(base), training)
    assert torch.equal(weight.data, before)


def test_options_of_lora_reach_peft() -> None:
    keys = {"r": 3, "lora_alpha": 6, "lora_dropout": 0.2, "use_rslora": True}
    config = adapted(language_model(), "lora", **keys).active_peft_config
    assert {key: getattr(config, key) for key in keys} == keys
    assert not config.use_dora
    assert adapted(language_model(), "dora").active_peft_config.use_dora
    assert adapted(language_model(), "lora", use_dora=True).active_peft_config.use_dora


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        (["q_proj"], {"q_proj"}),
        (r".*\.1\..*(q|k)_proj", {"q_proj", "k_proj"}),
        ("all-linear", {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj",
                        "down_proj"}),
    ],
)  # fmt: skip
def test_target_modules_are_names_a_pattern_or_all(targets: Any, expected: set[str]) -> None:
    names = trained(adapted(language_model(), "lora", target_modules=targets))
    assert {name.split(".")[-4] for name in names if "lora_A" in name} == expected


def test_a_prompt_starts_from_a_text(tmp_path: Path) -> None:
    save_tiny(tmp_path, "llama", auto_class=LANGUAGE)
    tokenizer = load_tokenizer(
        ModelConfig.model_validate({"model_name_or_path": str(tmp_path)}), "words"
    )
    given = options("prompt", num_virtual_tokens=4, prompt_tuning_init_text="abc")
    model = adapt_model(language_model(), given, tokenizer)
    (ids,) = tokenizer(["abc"]).input_ids
    expected = language_model().model.embed_tokens.weight[ids][:4]
    assert torch.equal(model.prompt_encoder.default.embedding.weight, expected)


@pytest.mark.parametrize(
    ("architecture", "method", "keys", "message"),
    [
        ("llama", "lora", {"target_modules": ["q_proj", "v_prj"]},
         "adapt.target_modules: 'v_prj' matches no module; did you mean v_proj?"),
        ("llama", "lora", {"target_modules": "q_proj"},
         "adapt.target_modules: 'q_proj' matches no module; one text is a regular expression for "
         "whole names, as model.layers.0.self_attn.q_proj; or give a list"),
        ("llama", "lora", {"target_modules": "q_(proj"},
         "adapt.target_modules: 'q_(proj' is no regular expression ("),
        ("llama", "lora", {"target_modules": ["input_layernorm"]},
         "adapt.target_modules: Target module LlamaRMSNorm"),
        ("llama", "lora", {"modules_to_save": ["lm_haed"]},
         "adapt.modules_to_save: 'lm_haed' matches no module; did you mean lm_head?"),
        ("qwen2", "lora", {"target_modules": ["lm_head"]},
         "adapt.target_modules: lm_head shares its weight with model.embed_tokens: an adapter "
         "would change one of them only; leave it out, or train with adapt.method full"),
        ("qwen2", "lora", {"modules_to_save": ["embed_tokens"]},
         "adapt.modules_to_save: model.embed_tokens shares its weight with lm_head"),
        ("bert", "lora", {"target_modules": ["query", "classifier"]},
         "adapt.target_modules: 'classifier' is the new head, which is trained in full anyway"),
        ("cohere", "ia3", {},
         "adapt.target_modules: not given, and peft has no choice of its own for cohere"),
    ],
)  # fmt: skip
def test_what_would_match_nothing_or_be_lost_is_refused(
    architecture: str, method: str, keys: dict[str, Any], message: str
) -> None:
    auto_class = TOKENS if architecture == "bert" else LANGUAGE
    (line,) = refusal(tiny_model(architecture, auto_class), method, **keys)
    assert line.startswith(message)


@pytest.mark.parametrize(
    ("architecture", "key", "asked", "first"),
    [
        ("t5", "target_modules", ["q", "embed_tokens"], "encoder.embed_tokens"),
        ("bart", "modules_to_save", ["shared"], "model.shared"),
        ("m2m_100", "target_modules", r".*decoder\.embed_tokens", "model.decoder.embed_tokens"),
    ],
)
def test_embeddings_of_both_sides_that_are_one_are_not_adapted(
    architecture: str, key: str, asked: Any, first: str
) -> None:
    """Merged, one side's adapter would change the other side and the head."""
    (line,) = refusal(tiny_seq2seq(architecture), "lora", **{key: asked})
    assert line.startswith(f"adapt.{key}: {first} shares its weight with ")
    assert "lm_head" in line.partition("shares its weight with")[2]


def test_what_is_trained_and_not_saved_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import peft

    keep = peft.get_peft_model_state_dict

    def forgetful(*args: Any, **keys: Any) -> dict[str, torch.Tensor]:
        return {name: kept for name, kept in keep(*args, **keys).items() if "lora_B" not in name}

    monkeypatch.setattr(peft, "get_peft_model_state_dict", forgetful)
    (line,) = refusal(language_model(), "lora")
    assert "lora_B.default.weight would be trained, but the adapter does not hold it" in line


def test_only_adapters_freeze_their_base() -> None:
    for method in ADAPTERS:
        expected = method not in ("full", "head", "freeze")
        assert is_peft(options(method)) == freezes_base(options(method)) == expected
        assert bool(load_options(options(method), "bfloat16")) == (method == "qlora")
    config = load_options(options("qlora", bnb_4bit_use_double_quant=False), "bfloat16")
    quantisation = config["quantization_config"]
    assert quantisation.bnb_4bit_quant_type == "nf4"
    assert quantisation.bnb_4bit_compute_dtype == torch.bfloat16
    assert not quantisation.bnb_4bit_use_double_quant


def test_positions_that_an_architecture_computes_are_not_trained() -> None:
    model = tiny_seq2seq("marian").requires_grad_(True)  # as loading leaves them
    computed = {name for name, _ in model.named_parameters() if "embed_positions" in name}
    trained = {name for name, p in adapted(model, "full").named_parameters() if p.requires_grad}
    assert computed
    assert trained == {name for name, _ in model.named_parameters()} - computed
