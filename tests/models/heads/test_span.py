"""The span head's loss is a sum over starts and ends, exact to fp32, however rows are padded."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from tiny import ARCHITECTURES, tiny_model
from torch import nn
from transformers import PreTrainedModel

from bigft.models.heads.span import SpanHeadOutput, attach_span_head
from bigft.models.heads.swap import base_model

AUTO = "AutoModelForQuestionAnswering"
SCALE = 0.37
LENGTHS = [11, 7, 3]


def inputs(length: int = 11) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Rows of LENGTHS, padded to `length`; the last one has no target. The seed is fixed."""
    random = torch.Generator().manual_seed(7)
    ids_BT = torch.zeros(len(LENGTHS), length, dtype=torch.long)
    for row, size in zip(ids_BT, LENGTHS, strict=True):
        row[:size] = torch.randint(4, 200, (size,), generator=random)
    mask_BT = (torch.arange(length) < torch.tensor(LENGTHS)[:, None]).long()
    return {"input_ids": ids_BT, "attention_mask": mask_BT}, torch.tensor(
        [[2, 4], [0, 0], [-100] * 2]
    )


def headed(architecture: str = "bert", **options: Any) -> PreTrainedModel:
    """A model that trains, but for its dropouts."""
    model = tiny_model(architecture, AUTO, num_labels=2)
    model.training = True  # of it alone: the layers below stay in evaluation mode
    attach_span_head(model, **options)
    return model


def ask(model: Any, batch: dict[str, torch.Tensor], labels_B2: torch.Tensor, **more: Any) -> Any:
    return model(labels_B2=labels_B2, is_token_BT=batch["attention_mask"], **more, **batch)


def reference(
    model: Any, batch: dict[str, torch.Tensor], labels_B2: torch.Tensor, smoothing: float
) -> torch.Tensor:
    """Row by row, each without its padding: -(1 - e) log p[y] - e/T * sum over tokens of log p."""
    total = torch.zeros((), dtype=torch.float64)
    for number, size in enumerate(LENGTHS):
        alone = {name: value[number : number + 1, :size] for name, value in batch.items()}
        answer = model(**alone)
        for logits_1T, label in zip(
            (answer.start_logits, answer.end_logits), labels_B2[number].tolist(), strict=True
        ):
            if label != -100:
                log_p_T = logits_1T[0].log_softmax(0)
                total = total - (1 - smoothing) * log_p_T[label] - smoothing * log_p_T.mean()
    return total


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_loss_and_gradients_are_those_of_fp64_row_by_row(
    architecture: str, smoothing: float
) -> None:
    batch, labels_B2 = inputs()
    exact = tiny_model(architecture, AUTO, num_labels=2).double()
    expected = reference(exact, batch, labels_B2, smoothing)
    (expected * SCALE).backward()
    model = headed(architecture, label_smoothing=smoothing)
    output = ask(model, batch, labels_B2, scale=SCALE)
    output.loss.backward()
    assert isinstance(output, SpanHeadOutput)
    assert output.loss.dtype == output.loss_sum.dtype == torch.float32
    assert not output.loss_sum.requires_grad
    assert output.loss_sum.item() == pytest.approx(expected.item(), rel=1e-6)
    assert output.loss.item() == pytest.approx(expected.item() * SCALE, rel=1e-6)
    largest = max(p.grad.abs().max().item() for p in exact.parameters() if p.grad is not None)
    for (name, ours), theirs in zip(model.named_parameters(), exact.parameters(), strict=True):
        assert (ours.grad is None) == (theirs.grad is None), name
        if ours.grad is not None:
            assert (ours.grad - theirs.grad).abs().max() <= 2e-6 * largest, name


def test_padding_is_no_candidate() -> None:
    model = headed()
    narrow, labels_B2 = inputs()
    wide, _ = inputs(length=19)
    assert ask(model, wide, labels_B2).loss_sum.item() == pytest.approx(
        ask(model, narrow, labels_B2).loss_sum.item(), rel=1e-6
    )
    output = ask(model, wide, labels_B2)
    for logits_BT in (output.start_logits_BT, output.end_logits_BT):
        assert torch.equal(logits_BT.isinf(), wide["attention_mask"] == 0)
    stock = tiny_model("bert", AUTO, num_labels=2)  # counts it, and its loss depends on it
    a, b = (
        stock(
            **batch, start_positions=torch.tensor([2, 0, 0]), end_positions=torch.tensor([4, 0, 0])
        ).loss
        for batch in (narrow, wide)
    )
    assert abs(a - b) > 1e-2


def test_the_sum_over_full_rows_is_transformers_mean_of_two_means() -> None:
    model, stock = headed(), tiny_model("bert", AUTO, num_labels=2)
    ids_BT = inputs()[0]["input_ids"][:1].repeat(2, 1)
    batch = {"input_ids": ids_BT, "attention_mask": torch.ones_like(ids_BT)}
    labels_B2 = torch.tensor([[2, 4], [0, 7]])
    theirs = stock(**batch, start_positions=labels_B2[:, 0], end_positions=labels_B2[:, 1]).loss
    assert ask(model, batch, labels_B2).loss_sum.item() / 4 == pytest.approx(
        theirs.item(), rel=1e-6
    )


def test_without_targets_there_is_no_loss_and_no_gradient() -> None:
    model = headed()
    batch, labels_B2 = inputs()
    output = ask(model, batch, torch.full_like(labels_B2, -100))
    output.loss.backward()
    assert output.loss_sum == 0
    assert all(not p.grad.any() for p in model.parameters() if p.grad is not None)


def test_evaluation_knows_no_smoothing() -> None:
    batch, labels_B2 = inputs()
    smoothed, plain = headed(label_smoothing=0.3), headed()
    with torch.no_grad():
        assert ask(smoothed, batch, labels_B2).loss_sum == ask(plain, batch, labels_B2).loss_sum


@pytest.mark.parametrize("kind", ["lora", "prompt"])
def test_positions_stay_where_they_are_behind_an_adapter(kind: str) -> None:
    base = tiny_model("bert", AUTO, num_labels=2)
    config: Any = (
        LoraConfig(task_type="QUESTION_ANS", target_modules=["query"], init_lora_weights=False)
        if kind == "lora"
        else PromptTuningConfig(task_type="QUESTION_ANS", num_virtual_tokens=4)
    )
    model: Any = get_peft_model(base, config)
    batch, labels_B2 = inputs()
    with torch.no_grad():
        whole = model(**batch)
        attach_span_head(model)
        output = ask(model, batch, labels_B2)
    assert output.start_logits_BT.shape == batch["input_ids"].shape
    is_token_BT = batch["attention_mask"].bool()
    virtual = 4 if kind == "prompt" else 0
    assert torch.equal(
        output.start_logits_BT[is_token_BT], whole.start_logits[:, virtual:][is_token_BT]
    )
    expected = -whole.end_logits[0, virtual:].log_softmax(0)[4]
    only = torch.tensor([[-100, 4], [-100, -100], [-100, -100]])
    with torch.no_grad():
        assert ask(model, batch, only).loss_sum == pytest.approx(expected.item())
    assert isinstance(base_model(model), nn.Module)
