"""`model.fused_head`: fused only where that changes nothing, and never without a word."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import ARCHITECTURES, DECODERS, tiny_config, tiny_model
from torch import nn
from transformers import BertForTokenClassification, LlamaForCausalLM

from bigft.config.errors import BadInput
from bigft.models.heads.choose import HeadChoice, choose_head
from bigft.models.heads.lm import attach_lm_head
from bigft.models.heads.swap import head_of
from bigft.models.heads.token import attach_token_head
from bigft.ops import native
from bigft.runtime.process_group import World

ALONE = World(0, 0, 1, torch.device("cpu"), None)
CAUSAL = "AutoModelForCausalLM"


@pytest.fixture(autouse=True)
def built(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the native library is there or not, these tests are about what follows from it."""
    pretend(monkeypatch, True)


def pretend(monkeypatch: pytest.MonkeyPatch, is_built: bool) -> None:
    """For the choice alone: the operators go on to know what is there."""
    known = SimpleNamespace(is_built=lambda operator, device: is_built, WHY_NOT="it is torn")
    monkeypatch.setattr("bigft.models.heads.choose.native", known)


def batch() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    random = torch.Generator().manual_seed(7)
    ids_BT = torch.randint(4, 200, (2, 9), generator=random)
    labels_BT = ids_BT % 5
    labels_BT[0, :4] = -100
    return {"input_ids": ids_BT, "attention_mask": torch.ones_like(ids_BT)}, labels_BT


def choose(model: Any, requested: Any = "auto", world: Any = ALONE, **options: Any) -> HeadChoice:
    choice = choose_head(model, *batch(), requested, world, **options)
    assert head_of(model).fused is choice.fused
    return choice


def token_model(made: Any = BertForTokenClassification, **options: Any) -> Any:
    torch.manual_seed(0)
    model = made(tiny_config(**options))
    attach_token_head(model)
    return model


# -- the choice ---------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_token_classifiers_are_fused(architecture: str) -> None:
    model = tiny_model(architecture)
    attach_token_head(model)
    assert str(choose(model)) == (
        "model.fused_head: fused head, because its loss and gradients are the stock head's"
    )


@pytest.mark.parametrize(
    ("architecture", "auto_class"),
    [(name, CAUSAL) for name in DECODERS]
    + [(name, "AutoModelForMaskedLM") for name in ARCHITECTURES],
)
def test_language_models_are_fused(architecture: str, auto_class: str) -> None:
    model = tiny_model(architecture, auto_class)
    attach_lm_head(model)
    assert choose(model).fused


def test_where_it_is_not_wanted_nothing_is_tried() -> None:
    model = token_model()
    model.forward.stock_forward = None
    assert choose(model, False) == HeadChoice(False, "it is false")


def test_without_native_operators_auto_is_stock_and_true_is_plain_torch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pretend(monkeypatch, False)
    assert choose(token_model()) == HeadChoice(
        False, "token_classification_head is not built for cpu: it is torn"
    )
    choice = choose(token_model(), True)
    assert choice.fused
    assert choice.reason.endswith(
        ", in plain torch: token_classification_head is not built for cpu"
    )


def test_ranks_decide_alike() -> None:
    class OtherRankFails:
        size = 2

        def sum(self, numbers: list[float]) -> list[float]:
            return [number + 0.0 for number in numbers]

    assert choose(token_model(), world=OtherRankFails()) == HeadChoice(
        False, "it does not fit on another rank"
    )


# -- what is not alike --------------------------------------------------------------------------


class Doubled(BertForTokenClassification):
    def forward(self, **inputs: Any) -> Any:
        output = super().forward(**inputs)
        return type(output)(logits=2 * output.logits)


class Squeezed(LlamaForCausalLM):
    """A softcap that no key of the config tells of; small logits hardly notice it."""

    def forward(self, **inputs: Any) -> Any:
        output = super().forward(**inputs)
        return type(output)(logits=30 * torch.tanh(output.logits / 30))


class DenseBetween(BertForTokenClassification):
    def forward(self, **inputs: Any) -> Any:
        hidden = self.dropout(self.bert(**inputs).last_hidden_state)
        logits = self.classifier(torch.tanh(hidden))
        return type("Output", (), {"logits": logits})()


class TwoDropouts(BertForTokenClassification):
    def __init__(self, config: Any) -> None:
        super().__init__(config)
        classifier = self.classifier
        del self.classifier
        self.second_dropout = nn.Dropout(0.1)
        self.classifier = classifier


class CalledTwice(LlamaForCausalLM):
    def forward(self, **inputs: Any) -> Any:
        self.lm_head(self.model(**inputs).last_hidden_state)
        return super().forward(**inputs)


def lora_on_the_head() -> Any:
    model = get_peft_model(
        BertForTokenClassification(tiny_config()),
        LoraConfig(r=2, target_modules=["query", "classifier"]),
    )
    attach_token_head(model)
    return model


def language_model(made: Any) -> Any:
    torch.manual_seed(0)
    model = made(tiny_config("llama"))
    attach_lm_head(model)
    return model


def weighted_and_smoothed() -> Any:
    model = BertForTokenClassification(tiny_config())
    attach_token_head(model, label_smoothing=0.1, class_weights=[1.0, 2.0, 1.0, 1.0, 1.0])
    return model


MISFITS: dict[str, tuple[Any, str]] = {
    "doubled": (lambda: token_model(Doubled), "the loss differs from the stock head's by "),
    "squeezed": (lambda: language_model(Squeezed), "the loss differs from the stock head's by "),
    "dense": (lambda: token_model(DenseBetween), "something stands between the dropout and the "),
    "dropouts": (lambda: token_model(TwoDropouts), "there are several dropouts before the "),
    "twice": (lambda: language_model(CalledTwice), "the model calls its last layer 2 times"),
    "lora": (lora_on_the_head, "the layer that makes the logits is peft's Linear, not an nn.L"),
    "labels": (lambda: token_model(num_labels=129), "129 labels are more than 128"),
    "weights": (weighted_and_smoothed, "class weights act inside of the label smoothing"),
}


@pytest.mark.parametrize(("make", "reason"), MISFITS.values(), ids=MISFITS)
def test_what_does_not_fit_stays_stock_with_the_reason(make: Any, reason: str) -> None:
    choice = choose(make())
    assert not choice.fused
    assert choice.reason.startswith(reason)
    assert str(choice) == f"model.fused_head: stock head, because {choice.reason}"


@pytest.mark.parametrize(("make", "reason"), MISFITS.values(), ids=MISFITS)
def test_what_does_not_fit_but_was_asked_for_is_refused(make: Any, reason: str) -> None:
    with pytest.raises(BadInput) as refused:
        choose(make(), True)
    assert str(refused.value).startswith(f"model.fused_head: it is true, but {reason}")
    assert str(refused.value).endswith("; set auto or false")


@pytest.mark.parametrize("name", ["weight", "bias", "bert.embeddings.word_embeddings.weight"])
def test_a_wrong_gradient_is_noticed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the layer itself, and of what lies below it."""
    from bigft import ops

    operator = ops.token_classification_head

    def wrong(hidden_NH: Any, weight_CH: Any, bias_C: Any, *args: Any, **keys: Any) -> Any:
        if name == "weight":
            weight_CH = 2 * weight_CH - weight_CH.detach()
        elif name == "bias":
            bias_C = 2 * bias_C - bias_C.detach()
        else:
            hidden_NH = 2 * hidden_NH - hidden_NH.detach()
        return operator(hidden_NH, weight_CH, bias_C, *args, **keys)

    monkeypatch.setattr(ops, "token_classification_head", wrong)
    where = name if "." in name else f"classifier.{name}"
    assert choose(token_model()).reason.startswith(f"the gradient of {where} differs")


def test_an_operator_that_fails_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    from bigft import ops

    def broken(*args: Any, **keys: Any) -> Any:
        raise RuntimeError("no kernel image\nand more lines")

    monkeypatch.setattr(ops, "token_classification_head", broken)
    assert choose(token_model()) == HeadChoice(False, "no kernel image")


@pytest.mark.skipif(bool(native.WHY_NOT), reason=native.WHY_NOT)
def test_the_token_head_is_not_fused_in_fp16() -> None:
    assert "float16: gradients would underflow" in choose(token_model(), dtype=torch.float16).reason


def test_in_bf16_it_is_compared_in_fp32() -> None:
    assert choose(token_model(), dtype=torch.bfloat16).fused


# -- no trace -----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [token_model, lora_on_the_head], ids=["fused", "stock"])
def test_no_trace_is_left(make: Any) -> None:
    model = make().train()
    model.base_model.eval()
    modes = [module.training for module in model.modules()]
    assert len(set(modes)) == 2
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    choose(model)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    hooks = [(m._forward_hooks, m._forward_pre_hooks) for m in model.modules()]
    assert not any(any(pair) for pair in hooks)
