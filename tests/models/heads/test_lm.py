"""The language-model head: transformers' own loss, with and without the logits of all rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from peft import LoraConfig, get_peft_model
from tiny import ARCHITECTURES, DECODERS, distance, head_gradients, tiny_model
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import PreTrainedModel

from bigft import ops
from bigft.models.heads.lm import attach_lm_head, logit_changes
from bigft.models.heads.swap import CannotFuse

CAUSAL, MASKED = "AutoModelForCausalLM", "AutoModelForMaskedLM"
MODELS = [(name, CAUSAL) for name in DECODERS] + [(name, MASKED) for name in ARCHITECTURES]
each_model = pytest.mark.parametrize(("architecture", "auto_class"), MODELS)
OPTIONS: dict[str, dict[str, float]] = {
    "plain": {},
    "smoothed": {"label_smoothing": 0.2},
    "z_loss": {"z_loss": 0.01},
}
VOCABULARY = 260
SCALE = 0.37


def inputs(auto_class: str) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Three padded rows, half of the labels masked; of a causal model shifted."""
    random = torch.Generator().manual_seed(7)
    ids_BT = torch.randint(4, 200, (3, 12), generator=random)
    mask_BT = (torch.arange(12) < torch.tensor([[12], [8], [5]])).long()
    labels_BT = ids_BT.roll(-1, 1) if auto_class == CAUSAL else ids_BT.clone()
    labels_BT[(torch.rand(3, 12, generator=random) < 1 / 3) | (mask_BT == 0)] = -100
    labels_BT[:, -1] = -100
    return {"input_ids": ids_BT, "attention_mask": mask_BT}, labels_BT


def headed(
    architecture: str = "llama", auto_class: str = CAUSAL, fused: bool = True, **options: Any
) -> PreTrainedModel:
    """A model that trains, but for its dropouts."""
    model = tiny_model(architecture, auto_class)
    model.training = True  # of it alone: the layers below stay in evaluation mode
    attach_lm_head(model, fused=fused, **options)
    return model


def reference(
    logits_BTV: torch.Tensor,
    labels_BT: torch.Tensor,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
) -> torch.Tensor:
    """[B, T], in the precision of the logits: -(1 - e) log p[y] - e/V sum log p + z lse^2."""
    log_p_BTV = logits_BTV.log_softmax(dim=-1)
    picked_BT = log_p_BTV.gather(2, labels_BT.clamp_min(0)[..., None])[..., 0]
    loss_BT = -(1 - label_smoothing) * picked_BT - label_smoothing * log_p_BTV.mean(dim=-1)
    return (loss_BT + z_loss * logits_BTV.logsumexp(dim=-1) ** 2) * (labels_BT != -100)


# -- the loss -----------------------------------------------------------------------------------


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@each_model
def test_loss_and_gradients_are_those_of_fp64(
    architecture: str, auto_class: str, options: dict[str, float], fused: bool
) -> None:
    batch, labels_BT = inputs(auto_class)
    exact = tiny_model(architecture, auto_class).double()
    expected_BT = reference(exact(**batch).logits, labels_BT, **options)
    (expected_BT.sum() * SCALE).backward()
    model = headed(architecture, auto_class, fused, **options)
    output = model(labels_BT=labels_BT, scale=SCALE, **batch)
    output.loss.backward()
    assert output.loss.dtype == output.loss_BT.dtype == torch.float32
    assert not output.loss_sum.requires_grad
    assert not output.loss_BT.requires_grad
    assert output.loss_sum.item() == pytest.approx(expected_BT.sum().item(), rel=1e-6)
    assert output.loss.item() == pytest.approx(expected_BT.sum().item() * SCALE, rel=1e-6)
    assert (output.loss_BT - expected_BT).abs().max() <= 2e-6 * expected_BT.max()
    largest = max(p.grad.abs().max().item() for p in exact.parameters() if p.grad is not None)
    for (name, ours), theirs in zip(model.named_parameters(), exact.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None), name
        if ours.grad is not None:
            assert (ours.grad - theirs.grad).abs().max() <= 2e-6 * largest, name


@each_model
def test_a_batch_without_targets_gives_zero_and_zero_gradients(
    architecture: str, auto_class: str
) -> None:
    batch, labels_BT = inputs(auto_class)
    answers = {}
    for fused in (False, True):
        model = headed(architecture, auto_class, fused)
        output = model(labels_BT=torch.full_like(labels_BT, -100), **batch)
        output.loss.backward()
        assert output.loss.item() == output.loss_sum.item() == 0
        answers[fused] = {name for name, p in model.named_parameters() if p.grad is not None}
        for name, parameter in model.named_parameters():
            assert parameter.grad is None or not parameter.grad.any(), name
    assert answers[True] == answers[False]  # ZeRO waits for a gradient of each


def test_rows_with_a_target_need_not_be_looked_up() -> None:
    batch, labels_BT = inputs(CAUSAL)
    rows_M = (labels_BT.flatten() != -100).nonzero().squeeze(1)
    model = headed()
    once = model(labels_BT=labels_BT, **batch)
    again = model(labels_BT=labels_BT, target_rows_M=rows_M, **batch)
    assert torch.equal(once.loss_BT, again.loss_BT)
    stock = headed(fused=False)
    told = stock(labels_BT=labels_BT, target_rows_M=rows_M, **batch)
    assert torch.equal(told.loss_sum, stock(labels_BT=labels_BT, **batch).loss_sum)


def test_factors_and_softcaps_are_read_from_the_config() -> None:
    changes = {name: logit_changes(tiny_model(name, CAUSAL).config) for name in DECODERS}
    assert changes == {
        "llama": (1.0, 0.0),
        "qwen2": (1.0, 0.0),
        "gpt2": (1.0, 0.0),
        "gemma2": (1.0, 2.0),
        "granite": (0.25, 0.0),
        "cohere": (0.25, 0.0),
    }


# -- what is held and answered ------------------------------------------------------------------


class NoLogits(TorchDispatchMode):
    """Fails at a tensor of `rows` rows or more over the vocabulary."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.rows = rows

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, (tuple, list)) else [made]:
            if isinstance(tensor, torch.Tensor) and tensor.shape[-1:] == (VOCABULARY,):
                assert tensor.numel() < self.rows * VOCABULARY, f"{func}: {tuple(tensor.shape)}"
        return made


@pytest.mark.parametrize("auto_class", [CAUSAL, MASKED])
def test_logits_of_all_rows_never_exist(auto_class: str) -> None:
    batch, labels_BT = inputs(auto_class)
    architecture = "llama" if auto_class == CAUSAL else "bert"
    model = headed(architecture, auto_class)
    with NoLogits(labels_BT.numel()):
        model(labels_BT=labels_BT, **batch).loss.backward()
        model.eval()
        with torch.no_grad():
            model(labels_BT=labels_BT, **batch)
    with NoLogits(labels_BT.numel()), pytest.raises(AssertionError, match="260"):
        headed(architecture, auto_class, fused=False)(labels_BT=labels_BT, **batch)


@each_model
def test_predictions_are_transformers_where_there_is_a_target(
    architecture: str, auto_class: str
) -> None:
    batch, labels_BT = inputs(auto_class)
    with torch.no_grad():
        best_BT = tiny_model(architecture, auto_class)(**batch).logits.argmax(dim=-1)
    assert len(best_BT.unique()) > 1
    for fused in (False, True):
        model = headed(architecture, auto_class, fused)
        assert model(labels_BT=labels_BT, **batch).predictions_BT is None  # nobody asks
        with torch.no_grad():
            output = model(labels_BT=labels_BT, **batch)
        assert torch.equal(output.predictions_BT, best_BT.where(labels_BT != -100, -1))


# -- precision, checkpointing, adapters ---------------------------------------------------------


def gradients(model: Any, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
    return head_gradients(model, *inputs(CAUSAL), dtype)


def test_under_autocast_it_is_as_exact_as_the_stock_head() -> None:
    exact = gradients(headed(fused=False))
    stock = gradients(headed(fused=False), torch.bfloat16)
    fused = gradients(headed(fused=True), torch.bfloat16)
    assert all(gradient.dtype == torch.float32 for gradient in fused.values())
    error = distance(fused, exact)
    assert 1e-4 < error <= 1.1 * distance(stock, exact)  # it did compute in bf16


def test_activation_checkpointing_changes_no_gradient() -> None:
    plain, saving = headed(), headed()
    saving.gradient_checkpointing_enable({"use_reentrant": False})
    runs = []
    for layer in saving.model.layers:
        layer.training = True  # or the layer does not checkpoint
        layer.self_attn.register_forward_hook(lambda *args: runs.append(1))
    assert distance(gradients(saving), gradients(plain)) == 0
    assert len(runs) == 2 * len(saving.model.layers)


@pytest.mark.parametrize("save", [[], ["lm_head"]], ids=["frozen", "copied"])
def test_under_lora_a_frozen_head_and_a_copied_one_train_as_the_stock_one(save: list[str]) -> None:
    answers = {}
    for fused in (False, True):
        model = tiny_model("llama", CAUSAL)
        torch.manual_seed(0)
        lora = LoraConfig(
            r=2, target_modules=["q_proj"], modules_to_save=save, task_type="CAUSAL_LM"
        )
        adapted = get_peft_model(model, lora)
        attach_lm_head(adapted, fused=fused)
        adapted.eval()
        model.training = True
        answers[fused] = gradients(adapted)
        assert any("lm_head" in name for name in answers[fused]) == bool(save)
        assert model.model.embed_tokens.weight.grad is None
    assert distance(answers[True], answers[False]) <= 1e-6


def test_a_head_without_a_plain_layer_is_not_fused() -> None:
    batch, labels_BT = inputs(CAUSAL)
    lora = LoraConfig(r=2, target_modules=["q_proj", "lm_head"])
    adapted = get_peft_model(tiny_model("llama", CAUSAL), lora)
    attach_lm_head(adapted, fused=True)
    with pytest.raises(CannotFuse, match="peft's Linear, not an"):
        adapted(labels_BT=labels_BT, **batch)
    body = tiny_model("llama", "AutoModel")
    attach_lm_head(body, fused=True)
    with pytest.raises(CannotFuse, match="no layer that makes logits"):
        body(labels_BT=labels_BT, **batch)


def test_the_operator_is_asked_once_a_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, labels_BT = inputs(CAUSAL)
    calls, operator = [], ops.linear_cross_entropy

    def watched(*args: Any, **keys: Any) -> Any:
        calls.append(keys)
        return operator(*args, **keys)

    monkeypatch.setattr(ops, "linear_cross_entropy", watched)
    headed("gemma2")(labels_BT=labels_BT, **batch)
    assert [call["softcap"] for call in calls] == [2.0]


# -- what stays ---------------------------------------------------------------------------------


@each_model
def test_a_checkpoint_stays_transformers_own(
    architecture: str, auto_class: str, tmp_path: Path
) -> None:
    batch, labels_BT = inputs(auto_class)
    model = tiny_model(architecture, auto_class)
    names, modules = list(model.state_dict()), list(model.modules())
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    attach_lm_head(model, fused=True)
    model.train()(labels_BT=labels_BT, **batch)
    assert list(model.state_dict()) == names
    assert list(model.modules()) == modules
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied
    model.save_pretrained(tmp_path)
    loaded = getattr(transformers, auto_class).from_pretrained(tmp_path)
    with torch.no_grad():
        stock = tiny_model(architecture, auto_class)(**batch).logits
        assert torch.equal(loaded.eval()(**batch).logits, stock)
