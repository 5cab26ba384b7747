"""The sequence head's loss is a sum over targets, exact to fp32, of every kind of label."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tiny import tiny_model

from bigft.models.heads.choose import choose_head
from bigft.models.heads.sequence import attach_sequence_head
from bigft.models.heads.swap import CannotFuse
from bigft.runtime.process_group import World

SINGLE, MULTI = "single_label_classification", "multi_label_classification"
WEIGHTS = [0.5, 2.0, 1.0, 0.0, 3.0]
ROW_WEIGHTS = torch.tensor([1.0, 0.5, 1 / 3, 1.0])
SCALE = 0.37
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "single": (SINGLE, {}),
    "single-weighted": (SINGLE, {"class_weights": WEIGHTS}),
    "single-smoothed": (SINGLE, {"label_smoothing": 0.2, "class_weights": WEIGHTS}),
    "single-focal": (SINGLE, {"focal_gamma": 2.0}),
    "single-focal-weighted": (SINGLE, {"focal_gamma": 0.5, "class_weights": WEIGHTS}),
    "multi": (MULTI, {}),
    "multi-focal": (MULTI, {"focal_gamma": 1.5, "class_weights": WEIGHTS}),
    "regression": ("regression", {}),
}


def batch() -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(7)
    ids_BT = torch.randint(4, 200, (4, 9), generator=random)
    mask_BT = (torch.arange(9) < torch.tensor([[9], [5], [3], [9]])).long()
    return {"input_ids": ids_BT, "attention_mask": mask_BT}


def labels(problem_type: str) -> torch.Tensor:
    if problem_type == "regression":
        return torch.tensor([0.5, float("nan"), -2.0, 3.0])
    if problem_type == MULTI:
        return torch.tensor([[0, 1, 0, 1, 1], [-100] * 5, [0, 0, -100, 0, 0], [1, 1, 1, 0, 1]])
    return torch.tensor([1, -100, 4, 2])


def model_of(problem_type: str, architecture: str = "bert") -> Any:
    num_labels = 1 if problem_type == "regression" else 5
    auto = "AutoModelForSequenceClassification"
    return tiny_model(architecture, auto, num_labels=num_labels)


def reference(logits_BC: torch.Tensor, problem_type: str, options: dict[str, Any]) -> torch.Tensor:
    """Target by target, in the precision of the logits."""
    weights = options.get("class_weights", [1.0] * 5)
    gamma, smoothing = options.get("focal_gamma", 0.0), options.get("label_smoothing", 0.0)
    total = logits_BC.new_zeros(())
    for row, label in enumerate(labels(problem_type).tolist()):
        weight = float(ROW_WEIGHTS[row])
        if problem_type == "regression":
            if label == label:
                total = total + weight * (logits_BC[row, 0] - label) ** 2
            continue
        if problem_type == MULTI:
            for c, value in enumerate(label):
                if value >= 0:
                    p = torch.sigmoid(logits_BC[row, c])
                    p = p if value else 1 - p
                    total = total - weight * weights[c] * (1 - p) ** gamma * p.log()
            continue
        if label < 0:
            continue
        log_p_C = logits_BC[row].log_softmax(0)
        spread = -sum(weights[c] * log_p_C[c] for c in range(5)) / 5
        loss = -(1 - smoothing) * weights[label] * log_p_C[label] + smoothing * spread
        total = total + weight * (1 - log_p_C[label].exp()) ** gamma * loss
    return total


@pytest.mark.parametrize("case", CASES)
def test_loss_and_gradients_are_those_of_fp64(case: str) -> None:
    problem_type, options = CASES[case]
    exact = model_of(problem_type).double()
    expected = reference(exact(**batch()).logits, problem_type, options)
    (expected * SCALE).backward()
    model = model_of(problem_type)
    model.training = True
    attach_sequence_head(model, problem_type, **options)
    output = model(labels_BT=labels(problem_type), scale=SCALE, row_weight_B=ROW_WEIGHTS, **batch())
    output.loss.backward()
    assert output.loss_sum.item() == pytest.approx(expected.item(), rel=2e-6)
    assert output.loss.item() == pytest.approx(expected.item() * SCALE, rel=2e-6)
    largest = max(p.grad.abs().max().item() for p in exact.parameters() if p.grad is not None)
    for (name, ours), theirs in zip(model.named_parameters(), exact.parameters(), strict=True):
        if ours.grad is not None:
            assert (ours.grad - theirs.grad).abs().max() <= 2e-6 * largest, name


@pytest.mark.parametrize("options", [{}, {"class_weights": WEIGHTS}, {"label_smoothing": 0.1}])
def test_the_fused_head_answers_as_the_stock_one(options: dict[str, Any]) -> None:
    answers = []
    for fused in (False, True):
        model = model_of(SINGLE)
        model.training = True
        attach_sequence_head(model, SINGLE, fused=fused, **options)
        output = model(labels_BT=labels(SINGLE), row_weight_B=ROW_WEIGHTS, **batch())
        assert (output.logits_BC is None) == fused
        output.loss.backward()
        answers.append((output.loss_sum, {n: p.grad for n, p in model.named_parameters()}))
    (stock, stock_gradients), (fused_loss, fused_gradients) = answers
    assert fused_loss.item() == pytest.approx(stock.item(), rel=1e-6)
    for name, gradient in stock_gradients.items():
        assert (fused_gradients[name] - gradient).abs().max() <= 1e-6, name


@pytest.mark.parametrize(
    ("problem_type", "architecture", "reason"),
    [
        (MULTI, "bert", "its targets are not one class of several"),
        ("regression", "bert", "its targets are not one class of several"),
        (SINGLE, "roberta", "RobertaClassificationHead, not an nn.Linear"),
        (SINGLE, "llama", "the classifier is not given one row for each text"),
    ],
)
def test_where_the_operator_does_not_fit_the_stock_head_answers(
    problem_type: str, architecture: str, reason: str
) -> None:
    model = model_of(problem_type, architecture)
    if architecture == "llama":
        model.config.pad_token_id = 0
    attach_sequence_head(model, problem_type)
    choice = choose_head(
        model, batch(), labels(problem_type), "auto", World(0, 0, 1, torch.device("cpu"), None)
    )
    assert not choice.fused
    assert reason in choice.reason


def test_a_focal_loss_of_a_sure_answer_has_a_finite_gradient() -> None:
    model = model_of(SINGLE)
    attach_sequence_head(model, SINGLE, focal_gamma=0.5)
    with torch.no_grad():
        model.classifier.bias[:] = torch.tensor([-90.0, 90.0, -90.0, -90.0, -90.0])
    output = model(labels_BT=torch.tensor([1, 1, 1, 1]), **batch())
    output.loss.backward()
    assert torch.isfinite(model.classifier.weight.grad).all()


def test_several_dropouts_cannot_be_fused() -> None:
    model = model_of(SINGLE)
    model.more = torch.nn.Dropout(0.1)
    model.classifier = model._modules.pop("classifier")  # last again
    model.training = True
    attach_sequence_head(model, SINGLE, fused=True)
    with pytest.raises(CannotFuse, match="there are several dropouts before the classifier"):
        model(labels_BT=labels(SINGLE), **batch())
