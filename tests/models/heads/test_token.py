"""The token head's loss is a sum over targets, exact to fp32, fused or as transformers wrote it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tiny import ARCHITECTURES, LABELS, distance, head_gradients, tiny_model
from transformers import AutoModelForTokenClassification, PreTrainedModel

from bigft import ops
from bigft.models.cpu_bf16 import multiply_in_fp32
from bigft.models.heads.swap import CannotFuse
from bigft.models.heads.token import TokenHeadOutput, attach_token_head
from bigft.ops import reference as operators

WEIGHTS = [0.25, 1.0, 3.0, 0.0, 1.5]
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "smoothed": {"label_smoothing": 0.1},
    "weighted": {"class_weights": WEIGHTS},
    "both": {"label_smoothing": 0.3, "class_weights": WEIGHTS},
}
# Class weights act inside of torch's label smoothing: the operator knows weights of rows.
FUSED = [name for name in OPTIONS if name != "both"]
HEADS = [(False, name) for name in OPTIONS] + [(True, name) for name in FUSED]
each_head = pytest.mark.parametrize(
    ("fused", "option"), HEADS, ids=[f"{'fused' if f else 'stock'}-{o}" for f, o in HEADS]
)
SCALE = 0.37


def inputs(num_rows: int = 3, length: int = 11) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Rows with padding at their ends, a third of the labels masked; the seed is fixed."""
    random = torch.Generator().manual_seed(7)
    ids_BT = torch.randint(4, 200, (num_rows, length), generator=random)
    mask_BT = (torch.arange(length) < torch.tensor([[length], [length - 4], [3]])).long()
    labels_BT = torch.randint(0, len(LABELS), (num_rows, length), generator=random)
    masked_BT = torch.rand(num_rows, length, generator=random) < 1 / 3
    labels_BT[masked_BT | (mask_BT == 0)] = -100
    return {"input_ids": ids_BT, "attention_mask": mask_BT}, labels_BT


def headed(architecture: str = "bert", fused: bool = True, **options: Any) -> PreTrainedModel:
    """A model that trains, but for its dropouts."""
    model = tiny_model(architecture)
    model.training = True  # of it alone: the layers below stay in evaluation mode
    attach_token_head(model, fused=fused, **options)
    return model


def reference(
    logits_BTC: torch.Tensor,
    labels_BT: torch.Tensor,
    label_smoothing: float = 0.0,
    class_weights: list[float] | None = None,
) -> torch.Tensor:
    """Target by target, in the precision of the logits:
    -w[y] (1 - e) log p[y] - e/C * sum over classes c of w[c] log p[c]."""
    weight_C = torch.tensor(class_weights or [1.0] * len(LABELS), dtype=logits_BTC.dtype)
    targets = labels_BT != -100
    log_p_MC = logits_BTC[targets].log_softmax(dim=-1)
    labels_M = labels_BT[targets]
    picked_M = log_p_MC.gather(1, labels_M[:, None])[:, 0] * weight_C[labels_M]
    spread_M = (log_p_MC * weight_C).mean(dim=-1)
    return -((1 - label_smoothing) * picked_M + label_smoothing * spread_M).sum()


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the operator was called with, call by call."""
    seen: list[dict[str, Any]] = []
    operator = ops.token_classification_head

    def watched(hidden_NH: torch.Tensor, *args: Any, **keys: Any) -> Any:
        seen.append({"hidden_NH": hidden_NH.detach(), **keys})
        return operator(hidden_NH, *args, **keys)

    monkeypatch.setattr(ops, "token_classification_head", watched)
    return seen


# -- the loss -----------------------------------------------------------------------------------


@each_head
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_loss_and_gradients_are_those_of_fp64(architecture: str, fused: bool, option: str) -> None:
    batch, labels_BT = inputs()
    exact = tiny_model(architecture).double()
    expected = reference(exact(**batch).logits, labels_BT, **OPTIONS[option])
    (expected * SCALE).backward()
    model = headed(architecture, fused, **OPTIONS[option])
    output = model(labels_BT=labels_BT, scale=SCALE, **batch)
    output.loss.backward()
    assert output.loss.dtype == output.loss_sum.dtype == torch.float32
    assert not output.loss_sum.requires_grad
    assert output.loss_sum.item() == pytest.approx(expected.item(), rel=1e-6)
    assert output.loss.item() == pytest.approx(expected.item() * SCALE, rel=1e-6)
    largest = max(p.grad.abs().max().item() for p in exact.parameters() if p.grad is not None)
    for (name, ours), theirs in zip(model.named_parameters(), exact.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None), name
        if ours.grad is not None:
            assert (ours.grad - theirs.grad).abs().max() <= 1e-6 * largest, name


@pytest.mark.parametrize("fused", [False, True])
def test_the_sum_is_over_targets_and_no_mean(fused: bool) -> None:
    batch, labels_BT = inputs()
    model = headed(fused=fused)
    twice = {name: tensor.repeat(2, 1) for name, tensor in batch.items()}
    once = model(labels_BT=labels_BT, **batch).loss_sum
    assert model(labels_BT=labels_BT.repeat(2, 1), **twice).loss_sum.item() == pytest.approx(
        2 * once.item()
    )


@each_head
def test_a_batch_without_targets_gives_zero_and_zero_gradients(fused: bool, option: str) -> None:
    batch, labels_BT = inputs()
    model = headed(fused=fused, **OPTIONS[option])
    output = model(labels_BT=torch.full_like(labels_BT, -100), **batch)
    output.loss.backward()
    assert output.loss.item() == output.loss_sum.item() == 0
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name  # ZeRO waits for a gradient of each
        assert torch.equal(parameter.grad, torch.zeros_like(parameter)), name


def test_class_weights_inside_of_label_smoothing_are_not_fused() -> None:
    batch, labels_BT = inputs()
    model = headed(**OPTIONS["both"])
    with pytest.raises(CannotFuse, match="class weights act inside of the label smoothing"):
        model(labels_BT=labels_BT, **batch)


# -- dropout ------------------------------------------------------------------------------------


def test_the_operator_drops_what_the_dropout_would_have(calls: list[dict[str, Any]]) -> None:
    """The classifier's dropout alone is on: the loss is the definition's, with the seed drawn."""
    batch, labels_BT = inputs()
    model = headed()
    hidden_BTH = model.bert(**batch).last_hidden_state
    model.dropout.train().p = 0.4
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(model(labels_BT=labels_BT, **batch).loss.item())
        call = calls[-1]
        assert torch.equal(call["hidden_NH"], hidden_BTH.flatten(0, 1))  # not dropped before
        assert call["dropout_p"] == 0.4
        layer = model.classifier
        expected = operators.token_classification_head(
            call["hidden_NH"], layer.weight, layer.bias, labels_BT.flatten(),
            dropout_p=0.4, seed=call["seed"],
        ).loss  # fmt: skip
        assert losses[-1] == pytest.approx(expected.item(), rel=1e-6)
    assert losses[0] == losses[1] != losses[2]


def test_dropout_leaves_the_mean_where_it_is() -> None:
    """With the softmax out of the way (one class towers), the loss is linear in what is dropped."""
    batch, labels_BT = inputs()
    losses = {}
    for p in (0.0, 0.5):
        model = headed()
        with torch.no_grad():
            model.classifier.bias.copy_(torch.tensor([60.0, 0, 0, 0, 0]))
        model.dropout.train().p = p
        torch.manual_seed(0)
        runs = [model(labels_BT=labels_BT, **batch).loss_sum.item() for _ in range(400)]
        losses[p] = torch.tensor(runs, dtype=torch.float64)
    noise = losses[0.5].std() / 400**0.5
    assert losses[0.0].std() == 0 < noise
    assert abs(losses[0.5].mean() - losses[0.0].mean()) < 4 * noise


# -- predictions --------------------------------------------------------------------------------


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_and_predictions_are_transformers(architecture: str, fused: bool) -> None:
    batch, labels_BT = inputs()
    model = tiny_model(architecture)
    with torch.no_grad():
        logits_BTC = tiny_model(architecture)(**batch).logits
        attach_token_head(model, fused=fused)
        output = model(labels_BT=labels_BT, **batch)
    assert isinstance(output, TokenHeadOutput)
    assert torch.equal(output.logits_BTC, logits_BTC)
    assert torch.equal(output.predictions_BT, logits_BTC.argmax(dim=-1))


def test_the_fused_head_trains_without_logits_and_answers_at_targets(
    calls: list[dict[str, Any]],
) -> None:
    batch, labels_BT = inputs()
    model = headed()
    stock_BT = tiny_model()(**batch).logits.argmax(dim=-1)
    output = model(labels_BT=labels_BT, **batch)
    assert output.logits_BTC is None
    assert torch.equal(output.predictions_BT, stock_BT.where(labels_BT != -100, -1))
    assert len(calls) == 1


@pytest.mark.parametrize("evaluation", ["mode", "no_grad"])
def test_scores_are_there_wherever_nothing_is_trained(
    evaluation: str, calls: list[dict[str, Any]]
) -> None:
    batch, labels_BT = inputs()
    model = headed()
    if evaluation == "mode":
        model.eval()
    with torch.set_grad_enabled(evaluation == "mode"):
        assert model(labels_BT=labels_BT, **batch).logits_BTC.shape == (3, 11, len(LABELS))
    assert not calls


def test_logits_are_fp32_and_detached_whatever_the_model_computes_in() -> None:
    batch, labels_BT = inputs()
    model = tiny_model().bfloat16()
    attach_token_head(model)
    output = model(labels_BT=labels_BT, **batch)
    assert output.logits_BTC.dtype == output.loss.dtype == torch.float32
    assert not output.logits_BTC.requires_grad
    assert output.loss.requires_grad


@pytest.mark.parametrize("fused", [False, True])
def test_of_equal_logits_the_lowest_class_is_predicted(fused: bool) -> None:
    batch, labels_BT = inputs()
    model = headed(fused=fused)
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([0.0, 2.0, 1.0, 2.0, 2.0]))
    predictions_BT = model(labels_BT=labels_BT, **batch).predictions_BT
    assert (predictions_BT[labels_BT != -100] == 1).all()


# -- precision, checkpointing, adapters ---------------------------------------------------------


def gradients(model: Any, dtype: torch.dtype | None = None) -> dict[str, torch.Tensor]:
    return head_gradients(model, *inputs(), dtype)


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
    for layer in saving.bert.encoder.layer:
        layer.training = True  # or the layer does not checkpoint
        layer.attention.register_forward_hook(lambda *args: runs.append(1))
    assert distance(gradients(saving), gradients(plain)) == 0
    assert len(runs) == 2 * len(saving.bert.encoder.layer)


@pytest.mark.parametrize("first", ["adapter", "head"])
def test_the_copy_that_peft_trains_is_what_answers(first: str) -> None:
    batch, labels_BT = inputs()
    answers = {}
    for fused in (False, True):
        model = tiny_model()
        if first == "head":
            attach_token_head(model, fused=fused)
        torch.manual_seed(0)
        lora = LoraConfig(
            r=2, target_modules=["query"], modules_to_save=["classifier"], task_type="TOKEN_CLS"
        )
        adapted = get_peft_model(model, lora)
        if first == "adapter":
            attach_token_head(adapted, fused=fused)
        adapted.eval()
        model.training = True
        copy = model.classifier.modules_to_save["default"]
        with torch.no_grad():
            copy.weight.add_(1.0)
        output = adapted(labels_BT=labels_BT, **batch)
        assert (output.logits_BTC is None) == fused
        output.loss.backward()
        assert model.classifier.original_module.weight.grad is None
        assert copy.weight.grad.abs().max() > 0
        trained = adapted.named_parameters()
        answers[fused] = {name: p.grad for name, p in trained if p.requires_grad}
    assert distance(answers[True], answers[False]) <= 1e-6


def test_an_adapter_on_the_classifier_is_not_fused() -> None:
    batch, labels_BT = inputs()
    model = tiny_model()
    adapted = get_peft_model(model, LoraConfig(r=2, target_modules=["query", "classifier"]))
    attach_token_head(adapted, fused=True)
    with pytest.raises(CannotFuse, match="peft's Linear, not an"):
        adapted.train()(labels_BT=labels_BT, **batch)


# -- what stays ---------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_checkpoint_stays_transformers_own(architecture: str, tmp_path: Path) -> None:
    batch, labels_BT = inputs()
    model = tiny_model(architecture)
    names, modules = list(model.state_dict()), list(model.modules())
    attach_token_head(model, fused=True, class_weights=WEIGHTS)
    model.train()(labels_BT=labels_BT, **batch)
    assert list(model.state_dict()) == names
    assert list(model.modules()) == modules
    model.save_pretrained(tmp_path)
    loaded = AutoModelForTokenClassification.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(**batch).logits, tiny_model(architecture)(**batch).logits)


def test_the_class_keeps_its_own_forward() -> None:
    model, other = tiny_model(), tiny_model()
    attach_token_head(model, fused=True)
    batch, _ = inputs()
    assert other(**batch).logits.shape == (3, 11, len(LABELS))


@pytest.mark.parametrize("fails", [False, True])
def test_no_layer_is_changed_after_a_forward(fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    batch, labels_BT = inputs()
    model = headed()
    multiply_in_fp32(model)  # gives layers a forward of their own
    before = vars(model.classifier)["forward"]
    if fails:
        monkeypatch.setattr(ops, "token_classification_head", None)
        with pytest.raises(TypeError, match="not callable"):
            model(labels_BT=labels_BT, **batch)
    else:
        model(labels_BT=labels_BT, **batch)
    assert vars(model.classifier)["forward"] is before
    assert not model.classifier._forward_hooks
    assert "forward" not in vars(model.dropout)
