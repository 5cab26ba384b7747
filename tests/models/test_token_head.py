"""The head's loss is a sum over targets, exact to fp32, on transformers' own classifiers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import ARCHITECTURES, LABELS, tiny_model
from transformers import AutoModelForTokenClassification

from bigft.models.heads.token import TokenHeadOutput, attach_token_head

WEIGHTS = [0.25, 1.0, 3.0, 0.0, 1.5]
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {},
    "smoothed": {"label_smoothing": 0.1},
    "weighted": {"class_weights": WEIGHTS},
    "both": {"label_smoothing": 0.3, "class_weights": WEIGHTS},
}


def inputs(num_rows: int = 3, length: int = 11) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Rows with padding at their ends, a third of the labels masked; the seed is fixed."""
    random = torch.Generator().manual_seed(7)
    ids_BT = torch.randint(4, 200, (num_rows, length), generator=random)
    mask_BT = (torch.arange(length) < torch.tensor([[length], [length - 4], [3]])).long()
    labels_BT = torch.randint(0, len(LABELS), (num_rows, length), generator=random)
    masked_BT = torch.rand(num_rows, length, generator=random) < 1 / 3
    labels_BT[masked_BT | (mask_BT == 0)] = -100
    return {"input_ids": ids_BT, "attention_mask": mask_BT}, labels_BT


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


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_loss_and_gradients_are_those_of_fp64(architecture: str, options: dict[str, Any]) -> None:
    batch, labels_BT = inputs()
    model, exact = tiny_model(architecture), tiny_model(architecture).double()
    expected = reference(exact(**batch).logits, labels_BT, **options)
    expected.backward()
    attach_token_head(model, **options)
    output = model(labels_BT=labels_BT, **batch)
    output.loss_sum.backward()
    assert output.loss_sum.dtype == torch.float32
    assert output.loss_sum.item() == pytest.approx(expected.item(), rel=1e-6)
    largest = max(p.grad.abs().max().item() for p in exact.parameters() if p.grad is not None)
    for (name, ours), theirs in zip(model.named_parameters(), exact.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None), name
        if ours.grad is not None:
            assert (ours.grad - theirs.grad).abs().max() <= 1e-6 * largest, name


def test_the_sum_is_over_targets_and_no_mean() -> None:
    batch, labels_BT = inputs()
    model = tiny_model()
    attach_token_head(model)
    twice = {name: tensor.repeat(2, 1) for name, tensor in batch.items()}
    once = model(labels_BT=labels_BT, **batch).loss_sum
    assert model(labels_BT=labels_BT.repeat(2, 1), **twice).loss_sum.item() == pytest.approx(
        2 * once.item()
    )


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_batch_without_targets_gives_zero_and_zero_gradients(options: dict[str, Any]) -> None:
    batch, labels_BT = inputs()
    model = tiny_model()
    attach_token_head(model, **options)
    loss_sum = model(labels_BT=torch.full_like(labels_BT, -100), **batch).loss_sum
    loss_sum.backward()
    assert loss_sum.item() == 0
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name  # ZeRO waits for a gradient of each
        assert torch.equal(parameter.grad, torch.zeros_like(parameter)), name


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logits_and_predictions_are_transformers(architecture: str) -> None:
    batch, labels_BT = inputs()
    model = tiny_model(architecture)
    with torch.no_grad():
        logits_BTC = tiny_model(architecture)(**batch).logits
        attach_token_head(model)
        output = model(labels_BT=labels_BT, **batch)
    assert isinstance(output, TokenHeadOutput)
    assert torch.equal(output.logits_BTC, logits_BTC)
    assert torch.equal(output.predictions_BT, logits_BTC.argmax(dim=-1))


def test_logits_are_fp32_and_detached_whatever_the_model_computes_in() -> None:
    batch, labels_BT = inputs()
    model = tiny_model().bfloat16()
    attach_token_head(model)
    output = model(labels_BT=labels_BT, **batch)
    assert output.logits_BTC.dtype == output.loss_sum.dtype == torch.float32
    assert not output.logits_BTC.requires_grad
    assert output.loss_sum.requires_grad


def test_of_equal_logits_the_lowest_class_is_predicted() -> None:
    batch, labels_BT = inputs()
    model = tiny_model()
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.tensor([0.0, 2.0, 1.0, 2.0, 2.0]))
    attach_token_head(model)
    assert (model(labels_BT=labels_BT, **batch).predictions_BT == 1).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_checkpoint_stays_transformers_own(architecture: str, tmp_path: Path) -> None:
    batch, _ = inputs()
    model = tiny_model(architecture)
    names = list(model.state_dict())
    attach_token_head(model, class_weights=WEIGHTS)
    assert list(model.state_dict()) == names
    model.save_pretrained(tmp_path)
    loaded = AutoModelForTokenClassification.from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(loaded.eval()(**batch).logits, tiny_model(architecture)(**batch).logits)


def test_the_class_keeps_its_own_forward() -> None:
    model, other = tiny_model(), tiny_model()
    attach_token_head(model)
    batch, _ = inputs()
    assert other(**batch).logits.shape == (3, 11, len(LABELS))
