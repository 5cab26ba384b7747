"""Samples that share a row do not see each other, and a model that lets them is refused."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import DECODERS, GROUPED, POSITIONS, SHAPE
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, GPT2LMHeadModel, LlamaForCausalLM

from bigft.config.errors import BadInput
from bigft.data.packing import join
from bigft.data.records import IGNORE_INDEX, Batch, Row
from bigft.models.heads.lm import attach_lm_head
from bigft.models.packed import check_packing
from bigft.runtime.process_group import World
from bigft.tasks.causal_lm.batch import collate
from bigft.tasks.text_rows import text_row

ALONE = World(0, 0, 1, torch.device("cpu"), None)
SAME = 1e-5  # relative; rounding is below 1e-6
MIXTURE = {"num_experts_per_tok": 1, "num_local_experts": 2}
KEPT_APART: dict[str, dict[str, Any]] = DECODERS | {
    "mistral": GROUPED | {"sliding_window": 4},
    "mixtral": GROUPED | MIXTURE,
    "phi": GROUPED,
    "phi3": GROUPED,
    "gemma": GROUPED | {"head_dim": 8},
    "gemma3_text": GROUPED | {"head_dim": 8, "sliding_window": 4},
    "qwen3": GROUPED | {"head_dim": 8},
    "olmo2": GROUPED,
    "starcoder2": GROUPED,
    "stablelm": GROUPED,
    "cohere2": GROUPED | {"sliding_window": 4},
    "smollm3": GROUPED,
    "gpt_neox": SHAPE,
    "gptj": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": POSITIONS, "rotary_dim": 4},
    "gpt_bigcode": {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": POSITIONS},
}  # fmt: skip
MAMBA = {"state_size": 4, "num_heads": 4, "head_dim": 8, "n_groups": 1}
LEAKING: dict[str, dict[str, Any]] = {
    "opt": SHAPE | {"ffn_dim": 32, "word_embed_proj_dim": 16},
    "falcon": SHAPE,
    "bloom": {"hidden_size": 16, "n_layer": 2, "n_head": 2},  # ALiBi
    "mpt": {"d_model": 16, "n_layers": 2, "n_heads": 2, "max_seq_len": POSITIONS},
    "bert": SHAPE | {"is_decoder": True},
    "mamba": {"hidden_size": 16, "num_hidden_layers": 2, "state_size": 4},
    "mamba2": {"hidden_size": 16, "num_hidden_layers": 2} | MAMBA,
    "lfm2": GROUPED | {"layer_types": ["conv", "full_attention"]},
    # Attention keeps apart, what stands beside it does not.
    "falcon_h1": GROUPED | {"head_dim": 8, "mamba_d_state": 4, "mamba_n_heads": 2,
                            "mamba_d_head": 8, "mamba_d_ssm": 16, "mamba_n_groups": 1},
}  # fmt: skip
NO_SDPA = {"gemma2", "gptj", "bloom", "mpt", "mamba", "mamba2"}


def cases(architectures: dict[str, Any]) -> list[tuple[str, str]]:
    return [
        (name, attention)
        for name in architectures
        for attention in ("sdpa", "eager")
        if not (attention == "sdpa" and name in NO_SDPA)
    ]


def language_model(name: str, attention: str = "eager", dtype: Any = torch.float32) -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        name, **{"vocab_size": 260, "pad_token_id": 0, **(KEPT_APART | LEAKING)[name]}
    )
    model = AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=dtype)
    attach_lm_head(model)
    return model.eval()


def feature(seed: int, length: int) -> Row:
    random = torch.Generator().manual_seed(seed)
    ids_T = torch.randint(4, 200, (length,), generator=random).tolist()
    return text_row(0, 0, 1, ids_T, [*ids_T[1:], IGNORE_INDEX])


SAMPLES = [feature(1, 7), feature(2, 5), feature(3, 9), feature(4, 6)]
PACKED = collate([join(SAMPLES[:3])], 0)
EACH = [collate([sample], 0) for sample in SAMPLES[:3]]


def naive(packed: Batch) -> Any:
    """What packing is without care: one causal row, its positions counted through."""
    ids_BT = packed.inputs["input_ids"]
    return SimpleNamespace(inputs={"input_ids": ids_BT}, labels=packed.labels)


def loss_and_gradients(model: Any, batches: list[Any]) -> tuple[float, dict[str, torch.Tensor]]:
    """Of the sum over all batches, by every parameter."""
    model.zero_grad()
    loss = 0.0
    for batch in batches:
        output = model(labels_BT=batch.labels, use_cache=False, **batch.inputs)
        output.loss.backward()
        loss += float(output.loss_sum)
    return loss, {n: p.grad for n, p in model.named_parameters() if p.grad is not None}


def distance(model: Any, ours: list[Any], theirs: list[Any]) -> tuple[float, float]:
    """Relative, of the losses and of the gradients (norm-wise, all parameters together)."""
    loss, gradients = loss_and_gradients(model, ours)
    gradients = {name: gradient.clone() for name, gradient in gradients.items()}
    expected_loss, expected = loss_and_gradients(model, theirs)
    assert gradients.keys() == expected.keys()
    error = sum(float((gradients[name] - expected[name]).square().sum()) for name in expected)
    size = sum(float(gradient.square().sum()) for gradient in expected.values())
    return abs(loss - expected_loss) / expected_loss, (error / size) ** 0.5


# -- packed is as unpacked ------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "attention"), cases(KEPT_APART))
def test_packed_rows_have_the_loss_and_the_gradients_of_their_samples(
    name: str, attention: str
) -> None:
    model = language_model(name, attention)
    assert max(distance(model, [PACKED], EACH)) < SAME
    check_packing(model, PACKED, EACH, ALONE)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("flatten", [False, True])
def test_rows_of_different_lengths_share_a_batch(attention: str, flatten: bool) -> None:
    """Padded to the longest, or one after the other as flash attention takes them."""
    model = language_model("llama", attention)
    batch = collate([join(SAMPLES[:1]), join(SAMPLES[1:])], 0, flatten=flatten)
    each = [collate([sample], 0) for sample in SAMPLES]
    assert max(distance(model, [batch], each)) < SAME


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "gpt2"])
def test_activation_checkpointing_keeps_them_apart(name: str) -> None:
    model = language_model(name, "sdpa")
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    expected = loss_and_gradients(model.train(), EACH)[0]
    model.gradient_checkpointing_enable({"use_reentrant": False})
    assert max(distance(model, [PACKED], EACH)) < SAME
    assert loss_and_gradients(model, [PACKED])[0] == pytest.approx(expected, rel=SAME)
    check_packing(model, PACKED, EACH, ALONE)


@pytest.mark.parametrize("name", DECODERS)
def test_naive_packing_is_noticed(name: str) -> None:
    """By the comparison above, and by the check: neither passes by being blind."""
    model = language_model(name)
    loss, gradient = distance(model, [naive(PACKED)], EACH)
    assert loss > SAME
    assert gradient > 1000 * SAME
    with pytest.raises(BadInput, match="lets the samples of a packed row see each other"):
        check_packing(model, naive(PACKED), EACH, ALONE)


# -- models that cannot ---------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "attention"), cases(LEAKING))
def test_a_model_that_lets_samples_see_each_other_is_refused(name: str, attention: str) -> None:
    model = language_model(name, attention)
    with pytest.raises(BadInput) as refused:
        check_packing(model, PACKED, EACH, ALONE)
    assert str(refused.value) == (
        f"data.packing: it is true, but {type(model).__name__} lets the samples of a packed row "
        "see each other; set it to false"
    )


def test_seeing_the_next_sample_is_a_leak_as_well() -> None:
    model = language_model("bert")
    for layer in model.bert.encoder.layer:
        layer.attention.self.is_causal = False
    model.config.is_decoder = False
    with pytest.raises(BadInput, match="see each other"):
        check_packing(model, PACKED, EACH[:1], ALONE)


@pytest.mark.parametrize("name", ["opt", "falcon_h1"])
def test_a_leak_is_found_in_bf16_too(name: str) -> None:
    with pytest.raises(BadInput, match="see each other"):
        check_packing(language_model(name, dtype=torch.bfloat16), PACKED, EACH, ALONE)


@pytest.mark.parametrize("name", ["llama", "gemma3_text", "mixtral"])
def test_16_bits_are_no_leak(name: str) -> None:
    check_packing(language_model(name, dtype=torch.bfloat16), PACKED, EACH, ALONE)
    check_packing(language_model(name), PACKED, EACH, ALONE, dtype=torch.bfloat16)


class CountsThrough(GPT2LMHeadModel):
    """Samples are apart, but positions are those of the row."""

    def forward(self, position_ids: Any = None, **inputs: Any) -> Any:
        if position_ids is not None:
            segment_T = (position_ids[0] == 0).cumsum(0)
            apart_TT = segment_T[:, None] == segment_T[None, :]
            inputs["attention_mask"] = apart_TT.tril()[None, None]
        return super().forward(**inputs)


class WrongBackward(LlamaForCausalLM):
    def forward(self, position_ids: Any = None, **inputs: Any) -> Any:
        output = super().forward(position_ids=position_ids, **inputs)
        if position_ids is not None:
            output.logits = 2 * output.logits - output.logits.detach()
        return output


class TakesNone(LlamaForCausalLM):
    def forward(self, input_ids: Any, attention_mask: Any = None, use_cache: bool = True) -> Any:
        return super().forward(input_ids, attention_mask, use_cache=use_cache)


@pytest.mark.parametrize(
    ("made", "name", "reason"),
    [
        (CountsThrough, "gpt2", "gives a sample of a packed row another loss than alone: it d"),
        (WrongBackward, "llama", "gives a sample of a packed row another gradient than alone: it"),
        (TakesNone, "llama", "cannot answer a packed row: TakesNone.forward() got an unexpected"),
    ],
)
def test_a_model_that_answers_packed_rows_otherwise_is_refused(
    made: Any, name: str, reason: str
) -> None:
    torch.manual_seed(0)
    model = made(AutoConfig.for_model(name, vocab_size=260, **DECODERS[name]))
    attach_lm_head(model)
    with pytest.raises(BadInput) as refused:
        check_packing(model, PACKED, EACH, ALONE)
    assert f"{made.__name__} {reason}" in str(refused.value)


def test_ranks_refuse_together() -> None:
    class OtherRankFails:
        def sum(self, numbers: list[float]) -> list[float]:
            return [number + 1.0 for number in numbers]

    with pytest.raises(BadInput, match="does not keep samples apart on another rank"):
        check_packing(language_model("llama"), PACKED, EACH, OtherRankFails())  # type: ignore[arg-type]


# -- whatever is trained, and without a trace -----------------------------------------------------


def lora() -> Any:
    torch.manual_seed(0)
    config = AutoConfig.for_model("llama", vocab_size=260, **DECODERS["llama"])
    options = LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")
    model = get_peft_model(LlamaForCausalLM(config), options)
    attach_lm_head(model)
    return model


def head_only() -> Any:
    model = language_model("llama")
    model.requires_grad_(False)
    model.lm_head.requires_grad_(True)
    return model


@pytest.mark.parametrize("make", [lora, head_only])
def test_frozen_weights_hide_nothing(make: Any) -> None:
    check_packing(make(), PACKED, EACH, ALONE)
    with pytest.raises(BadInput, match="LlamaForCausalLM lets the samples"):
        check_packing(make(), naive(PACKED), EACH, ALONE)


def test_no_trace_is_left() -> None:
    model = language_model("gpt2").train()
    model.transformer.h[0].eval()
    modes = [module.training for module in model.modules()]
    assert len(set(modes)) == 2
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    check_packing(model, PACKED, EACH, ALONE)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
