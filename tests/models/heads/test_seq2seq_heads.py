"""The language-model head on encoder-decoders: transformers' own loss, with and without logits."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_seq2seq import ENCODER_DECODERS, tiny_seq2seq

from bigft.models.heads.choose import choose_head
from bigft.models.heads.lm import attach_lm_head
from bigft.runtime.process_group import World

ALONE = World(0, 0, 1, torch.device("cpu"), None)
SCALE = 0.37
each_model = pytest.mark.parametrize("architecture", ENCODER_DECODERS)


def inputs() -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    """Three sources and targets, padded; a third of the labels masked."""
    random = torch.Generator().manual_seed(7)
    source_BT = torch.randint(4, 200, (3, 12), generator=random)
    target_BT = torch.randint(4, 200, (3, 8), generator=random)
    lengths_B1, target_lengths_B1 = torch.tensor([[12], [8], [5]]), torch.tensor([[8], [7], [2]])
    labels_BT = target_BT.clone()
    labels_BT[torch.arange(8) >= target_lengths_B1] = -100
    labels_BT[torch.rand(3, 8, generator=random) < 1 / 3] = -100
    batch = {
        "input_ids": source_BT,
        "attention_mask": (torch.arange(12) < lengths_B1).long(),
        "decoder_input_ids": target_BT.roll(1, 1),
    }
    return batch, labels_BT


@each_model
@pytest.mark.parametrize("fused", [False, True])
def test_loss_and_gradients_are_those_of_fp64(architecture: str, fused: bool) -> None:
    batch, labels_BT = inputs()
    exact, stock = tiny_seq2seq(architecture).double(), tiny_seq2seq(architecture)
    for plain in (stock, exact):
        logits_NV = plain(**batch).logits.flatten(0, 1)
        expected = torch.nn.functional.cross_entropy(
            logits_NV, labels_BT.flatten(), reduction="sum"
        )
        (expected * SCALE).backward()
    model = tiny_seq2seq(architecture)
    attach_lm_head(model, fused=fused)
    model.training = True  # of it alone: the layers below stay in evaluation mode
    output = model(labels_BT=labels_BT, scale=SCALE, **batch)
    output.loss.backward()
    assert output.loss_sum.item() == pytest.approx(expected.item(), rel=1e-6)
    assert output.loss.item() == pytest.approx(expected.item() * SCALE, rel=1e-6)
    largest = max(p.grad.abs().max().item() for p in exact.parameters() if p.grad is not None)
    parameters = zip(model.named_parameters(), stock.parameters(), exact.parameters(), strict=True)
    for (name, ours), rounded, theirs in parameters:
        assert (ours.grad is None) == (theirs.grad is None), name
        if ours.grad is not None:
            # T5 does not scale its scores down: how much rounding they add depends on the CPU.
            own = (rounded.grad - theirs.grad).abs().max()
            bound = max(2e-6 * largest, 2 * own)
            assert (ours.grad - theirs.grad).abs().max() <= bound, name


@each_model
def test_predictions_are_transformers_where_there_is_a_target(architecture: str) -> None:
    batch, labels_BT = inputs()
    with torch.no_grad():
        best_BT = tiny_seq2seq(architecture)(**batch).logits.argmax(dim=-1)
        for fused in (False, True):
            model = tiny_seq2seq(architecture)
            attach_lm_head(model, fused=fused)
            output = model(labels_BT=labels_BT, **batch)
            assert torch.equal(output.predictions_BT, best_BT.where(labels_BT != -100, -1))


@each_model
def test_they_are_fused(architecture: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose(tiny_seq2seq(architecture), monkeypatch).fused


@pytest.mark.parametrize("architecture", ["bart", "marian", "pegasus"])
def test_a_bias_behind_the_layer_is_found(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_seq2seq(architecture)
    model.final_logits_bias[0, 5:100] = 3.0  # zero in every model that is published
    choice = choose(model, monkeypatch)
    assert not choice.fused
    assert "the loss differs from the stock head's" in choice.reason


def choose(model: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    known = SimpleNamespace(is_built=lambda operator, device: True, WHY_NOT="")
    monkeypatch.setattr("bigft.models.heads.choose.native", known)
    attach_lm_head(model)
    return choose_head(model, *inputs(), "auto", ALONE)


@each_model
def test_without_labels_it_generates_as_transformers(architecture: str) -> None:
    batch, _ = inputs()
    prompt = {name: batch[name] for name in ("input_ids", "attention_mask")}
    options: dict[str, Any] = {"max_new_tokens": 6, "min_new_tokens": 6, "num_beams": 2}
    stock = tiny_seq2seq(architecture).generate(**prompt, **options)
    model = tiny_seq2seq(architecture)
    attach_lm_head(model, fused=True)
    ours = model.generate(**prompt, **options)
    assert len(ours.unique()) > 1
    assert torch.equal(ours, stock)
