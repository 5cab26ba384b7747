"""What only the token-classification head promises. The rest: test_contract.py."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from ops.cases import Case, assert_as_exact_as_torch, make, needs_native

from bigft.ops import reference, token_classification_head

OPERATOR = "token_classification_head"
SEED = (20_240_229, -7)
# Labels and hidden sizes around the widths of vectors; rows around powers of two.
SHAPES = [(n, c, 20) for c in (2, 9) for n in (0, 1, 127, 129)]
SHAPES += [(33, c, h) for c in (3, 17, 33, 128) for h in (1, 7, 64, 129)]


def seed(device: torch.device, *words: int) -> torch.Tensor:
    return torch.tensor(words or SEED, dtype=torch.int64, device=device)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_shape(shape: tuple[int, int, int], dtype: torch.dtype, device: torch.device) -> None:
    *rows_and_classes, hidden_size = shape
    case = make(OPERATOR, *rows_and_classes, hidden_size=hidden_size, dtype=dtype, device=device)
    signal = 5.0 if rows_and_classes[0] else 0.0
    assert_as_exact_as_torch(case.ours(), case.torchs(), case.exact(), signal=signal)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("hidden_size", [1, 6, 64, 133])
def test_dropout_drops_what_the_definition_says(
    hidden_size: int, dtype: torch.dtype, device: torch.device
) -> None:
    """By the gradient of the rows: 0 where an element fell out, and only there."""
    case = make(OPERATOR, 40, hidden_size=hidden_size, dtype=dtype, mask="none", device=device)
    found = case.ours(dropout_p=0.25, seed=seed(device))
    keep_NH = reference.dropout_mask(seed(device), *case.rows.shape, 0.25)
    assert torch.equal(found["grad_hidden_NH"].cpu() != 0, keep_NH)
    assert abs(keep_NH.float().mean() - 0.75) < 0.1
    kept = case.with_rows(case.rows * keep_NH.to(device) / 0.75)
    options = {"dropout_p": 0.25, "seed": seed(device)}
    torchs = kept.torchs()
    torchs["grad_hidden_NH"] = torchs["grad_hidden_NH"] * keep_NH.to(device) / 0.75
    assert_as_exact_as_torch(found, torchs, case.exact(**options))


def test_dropout_follows_the_seed_and_the_row_only(device: torch.device) -> None:
    """Other words of the seed, other elements; a row's mask does not depend on the other labels."""
    case = make(OPERATOR, 64, mask="none", device=device)
    half = make(OPERATOR, 64, mask="half", device=device)

    def kept(case: Case, *words: int) -> torch.Tensor:
        return case.ours(dropout_p=0.5, seed=seed(device, *words))["grad_hidden_NH"] != 0

    first = kept(case, 1, 2)
    assert torch.equal(first, kept(case, 1, 2))
    assert torch.equal(first[::2], kept(half, 1, 2)[::2])
    for other in ((2, 2), (1, 3), (1 + 2**32, 2), (1, 2 + 2**32), (-1, 2)):
        agreement = (first == kept(case, *other)).float().mean()
        assert 0.4 < agreement < 0.6, other


def test_dropout_of_nothing_needs_no_seed_and_changes_nothing(device: torch.device) -> None:
    case = make(OPERATOR, device=device)
    plain, seeded = case.ours(), case.ours(dropout_p=0.0, seed=seed(device))
    for name, value in plain.items():
        assert torch.equal(value, seeded[name])


def test_predictions_are_the_lowest_of_the_largest_and_masked_rows_have_none(
    device: torch.device,
) -> None:
    for dtype in (torch.float32, torch.bfloat16):
        case = make(OPERATOR, 127, 40, data="huge", dtype=dtype, device=device)
        logits_NC = F.linear(*(tensor.float() for tensor in case.tensors.values()))
        ties_NC = logits_NC == logits_NC.max(dim=1, keepdim=True).values
        assert (ties_NC.sum(dim=1) > 1).all()
        lowest_N = ties_NC.int().argmax(dim=1).masked_fill(case.labels_N == -100, -1)
        output = case.call()
        assert torch.equal(output.predictions_N, lowest_N)
        assert not output.predictions_N.requires_grad
        assert output.logits_NC is None


def test_predictions_see_the_dropped_rows(device: torch.device) -> None:
    """In training they are the classes of the same logits that the loss is of."""
    case = make(OPERATOR, 64, mask="none", device=device)
    keep_NH = reference.dropout_mask(seed(device), *case.rows.shape, 0.5).to(device)
    dropped = F.linear(case.rows * keep_NH / 0.5, *list(case.tensors.values())[1:]).argmax(dim=1)
    found = case.call(dropout_p=0.5, seed=seed(device)).predictions_N
    assert torch.equal(found, dropped)
    assert not torch.equal(found, case.call().predictions_N)


def test_without_labels_only_logits(device: torch.device) -> None:
    case = make(OPERATOR, device=device)
    leaves = [tensor.requires_grad_() for tensor in case.tensors.values()]
    output = token_classification_head(**case.tensors)
    assert output[:4] == (None, None, None, None)
    expected = F.linear(*leaves)
    torch.testing.assert_close(output.logits_NC, expected)
    found = torch.autograd.grad(output.logits_NC.square().sum(), leaves)
    for ours, torchs in zip(
        found, torch.autograd.grad(expected.square().sum(), leaves), strict=True
    ):
        assert torchs.any()
        torch.testing.assert_close(ours, torchs)


def test_without_a_bias(device: torch.device) -> None:
    case = make(OPERATOR, device=device)
    tensors = {"hidden_NH": case.rows, "weight_CH": case.tensors["weight_CH"]}
    found = token_classification_head(**tensors, bias_C=None, labels_N=case.labels_N)
    zero = replace(case, tensors={**tensors, "bias_C": torch.zeros(9, device=device)})
    torch.testing.assert_close(found.loss, zero.ours()["loss"])
    torch.testing.assert_close(found.loss.double(), zero.exact()["loss"], rtol=1e-6, atol=0)


@pytest.mark.parametrize("frozen", ["hidden_NH", "weight_CH", "bias_C"])
def test_a_frozen_input_gets_no_gradient_and_the_others_theirs(
    frozen: str, device: torch.device
) -> None:
    case = make(OPERATOR, device=device)
    whole = case.ours()
    for name, tensor in case.tensors.items():
        tensor.requires_grad_(name != frozen)
    case.call().loss.backward()
    for name, tensor in case.tensors.items():
        if name == frozen:
            assert tensor.grad is None
        else:
            assert tensor.grad.any()
            torch.testing.assert_close(tensor.grad, whole[f"grad_{name}"])


def test_fp32_weights_under_autocast_get_gradients_that_bf16_cannot_hold(
    device: torch.device,
) -> None:
    """Rows in bf16, as the encoder leaves them; the sum over the rows never passes through bf16."""
    needs_native(device)
    case = make(OPERATOR, 600, 30, hidden_size=40, device=device)
    rounded = case.to(torch.bfloat16)
    mixed = case.with_rows(rounded.rows)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        found = mixed.ours()
    assert found["grad_hidden_NH"].dtype == torch.bfloat16
    assert_as_exact_as_torch(found, rounded.torchs(), rounded.exact())
    for name in ("grad_weight_CH", "grad_bias_C"):
        gradient = found[name]
        assert gradient.dtype == torch.float32
        held_by_bf16 = gradient.bfloat16().float() == gradient
        assert held_by_bf16.float().mean() < 0.1, f"{name} passed through bf16"


def test_fp16_is_refused_with_the_reason(device: torch.device) -> None:
    """Gradients in the forward would underflow before the loss scale reaches them."""
    needs_native(device)
    with pytest.raises(TypeError, match=r"hidden_NH.*float16.*underflow"):
        make(OPERATOR, dtype=torch.float16, device=device).call()
