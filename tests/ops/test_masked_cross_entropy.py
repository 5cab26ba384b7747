"""What only cross-entropy over given logits promises. The rest: test_contract.py."""

from __future__ import annotations

import pytest
import torch
from ops.cases import (
    DATA,
    TIMES_TORCH,
    Case,
    assert_as_exact_as_torch,
    distance,
    make,
    needs_native,
)

from bigft.ops import masked_cross_entropy

OPERATOR = "masked_cross_entropy"
# Rows and classes: one, two, fewer than a vector, and the vocabularies of GPT-2 (odd: its rows are
# not aligned), Llama 3, Qwen 2.5 and Gemma; rows around the powers of two that work is cut into.
SHAPES = [(n, v) for v in (1, 2, 7) for n in (0, 1, 127, 129)]
SHAPES += [(3, v) for v in (50257, 128256, 151936, 262144)]
LABELS = torch.tensor([0, 3, -100, 5])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("num_rows", "num_classes"), SHAPES)
def test_each_shape(
    num_rows: int, num_classes: int, dtype: torch.dtype, device: torch.device
) -> None:
    """With z-loss: the gradient of a single class is 0 without it."""
    case = make(OPERATOR, num_rows, num_classes, hidden_size=4, dtype=dtype, device=device)
    sides = (case.ours, case.torchs, case.exact)
    assert_as_exact_as_torch(*(side(z_loss=0.05) for side in sides), signal=5.0 if num_rows else 0)


@pytest.mark.parametrize("softcap", [0.0, 30.0])
def test_a_vocabulary_with_a_confident_target(softcap: float, device: torch.device) -> None:
    """The largest logit lies anywhere in a row of several blocks, and far above the others."""
    case = make(OPERATOR, 7, 5003, mask="none", device=device)
    logits_NV = case.rows.clone()
    logits_NV[torch.arange(7), case.labels_N] += torch.linspace(5, 25, 7, device=device)
    case = case.with_rows(logits_NV)
    sides = (case.ours, case.torchs, case.exact)
    assert_as_exact_as_torch(*(side(softcap=softcap) for side in sides))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_the_targets_gradient_alone(dtype: torch.dtype, device: torch.device) -> None:
    """p - 1 with p near 1, within one unit in the last place of the dtype, in every row.

    A p that was rounded to bf16 before 1 is taken away leaves 0, or twice the gradient.
    """
    case = make(OPERATOR, 129, 9, data="confident", mask="none", dtype=dtype, device=device)
    at_target = case.labels_N[:, None]
    ours_N, torchs_N, exact_N = (
        side["grad_logits_NV"].gather(1, at_target).squeeze(1).double()
        for side in (case.ours(), case.to(torch.float32).torchs(), case.exact())
    )
    # p in fp32 is itself a multiple of 6e-8 near 1: torch's error, without the rounding to dtype.
    slack = TIMES_TORCH * (torchs_N - exact_N).abs().max()
    if dtype == torch.float16:  # recomputed in the backward, from an lse in fp32
        slack += torch.finfo(torch.float32).eps * case.exact()["lse_N"].max()
    assert ((ours_N - exact_N).abs() <= torch.finfo(dtype).eps * exact_N.abs() + slack).all()
    assert slack < 5e-6
    near_one = (exact_N > -0.01) & (exact_N < -1e-4)
    assert near_one.sum() > 20


@pytest.mark.parametrize("data", DATA)
def test_a_recomputed_gradient_is_as_exact_as_the_saved_lse(
    data: str, device: torch.device
) -> None:
    """p = exp(logit - lse), at most 1, is off by what fp32 rounded the lse by."""
    case = make(OPERATOR, 129, data=data, device=device)
    found = case.ours(torch.ones(129, device=device), reduction="none")["grad_logits_NV"]
    exact = case.exact()
    rounding = torch.finfo(torch.float32).eps * float(exact["lse_N"].abs().max())
    assert distance(found, exact["grad_logits_NV"]) <= rounding + 4e-7
    assert exact["grad_logits_NV"].abs().max() > 0.01


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_rows_of_minus_infinity_as_in_torch(dtype: torch.dtype, device: torch.device) -> None:
    """A row without any finite logit: nan. A target at -inf: a loss of inf, a gradient of -1."""
    case = make(OPERATOR, 6, 9, mask="none", dtype=dtype, device=device)
    logits_NV = case.rows.clone()
    logits_NV[1] = -torch.inf
    logits_NV[4, case.labels_N[4]] = -torch.inf
    case = case.with_rows(logits_NV)
    ours, torchs = case.ours(), case.torchs()
    for name in ("loss_N", "lse_N", "grad_logits_NV"):
        torch.testing.assert_close(ours[name], torchs[name], equal_nan=True)
    assert ours["loss_N"][1].isnan()
    assert ours["loss_N"][4].isposinf()
    assert ours["lse_N"][1].isneginf()


def test_nan_in_a_row_with_a_target_is_not_hidden(device: torch.device) -> None:
    case = make(OPERATOR, 6, 9, mask="half", device=device)
    logits_NV = case.rows.clone()
    logits_NV[2, 5] = torch.nan
    ours = case.with_rows(logits_NV).ours()
    assert ours["loss_N"].isnan().tolist() == [row == 2 for row in range(6)]
    assert ours["loss"].isnan()
    assert ours["grad_logits_NV"][2].isnan().all()
    assert not ours["grad_logits_NV"][4].isnan().any()


@pytest.mark.parametrize("upstream", [1.0, 3.7])
def test_in_place_gives_the_same_and_uses_up_the_logits(
    upstream: float, device: torch.device
) -> None:
    needs_native(device)
    case = make(OPERATOR, device=device)
    expected = case.ours(torch.tensor(upstream, device=device))
    leaf = case.rows.clone().requires_grad_()
    logits_NV = leaf * 1
    output = masked_cross_entropy(logits_NV, case.labels_N, inplace=True)
    (output.loss * upstream).backward()
    assert torch.equal(output.loss, expected["loss"])
    assert torch.equal(output.loss_N, expected["loss_N"])
    assert torch.equal(leaf.grad, expected["grad_logits_NV"])
    assert not torch.equal(logits_NV, leaf), "the logits are still there: a copy was made"


def test_in_place_refuses_a_leaf(device: torch.device) -> None:
    case = make(OPERATOR, device=device)
    leaf = case.rows.clone().requires_grad_()
    with pytest.raises(ValueError, match=r"inplace.*leaf"):
        masked_cross_entropy(leaf, case.labels_N, inplace=True)
    assert torch.equal(leaf, case.rows)


def test_in_place_is_seen_by_whoever_kept_the_logits(device: torch.device) -> None:
    needs_native(device)
    case = make(OPERATOR, device=device)
    logits_NV = case.rows.clone().requires_grad_() * 1
    squares = logits_NV.square().sum()
    loss = masked_cross_entropy(logits_NV, case.labels_N, inplace=True).loss
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        (loss + squares).backward()


def test_without_gradients_nothing_is_kept(device: torch.device) -> None:
    case = make(OPERATOR, device=device)
    output = masked_cross_entropy(case.rows, case.labels_N)
    assert not output.loss.requires_grad
    with torch.no_grad():
        quiet = masked_cross_entropy(case.rows.clone().requires_grad_(), case.labels_N)
    assert not quiet.loss.requires_grad
    assert torch.equal(quiet.loss, output.loss)
    assert output.loss > 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_more_than_two_to_the_31_logits() -> None:
    """The last rows lie beyond what 32 bits can count."""
    num_classes, num_rows = 262144, 2**13 + 3
    logits_NV = torch.zeros(num_rows, num_classes, dtype=torch.bfloat16, device="cuda")
    logits_NV[-1, 7] = 20
    labels_N = torch.full((num_rows,), -100, device="cuda")
    labels_N[-1] = 7
    found = Case(OPERATOR, {"logits_NV": logits_NV}, labels_N).ours()
    exact = Case(OPERATOR, {"logits_NV": logits_NV[-1:]}, labels_N[-1:]).exact()
    torch.testing.assert_close(found["loss_N"][-1].double(), exact["loss_N"][0])
    torch.testing.assert_close(
        found["grad_logits_NV"][-1].double(), exact["grad_logits_NV"][0], rtol=0.01, atol=0
    )
    assert not found["grad_logits_NV"][:-1].any()


@pytest.mark.parametrize("view", [False, True])
def test_in_place_refuses_to_overwrite_a_parameter(view: bool) -> None:
    leaf = torch.randn(4, 6, requires_grad=True)
    before = leaf.detach().clone()
    with pytest.raises(ValueError, match=r"inplace.*leaf"):
        masked_cross_entropy(leaf.view(4, 6) if view else leaf, LABELS, inplace=True)
    assert torch.equal(leaf, before)


def test_in_place_notices_who_changes_the_gradient_before_the_backward() -> None:
    needs_native(torch.device("cpu"))
    logits_NV = torch.randn(4, 6, requires_grad=True) * 1
    loss = masked_cross_entropy(logits_NV, LABELS, inplace=True).loss
    logits_NV.mul_(3)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_in_place_refuses_fp16_whose_gradients_would_underflow() -> None:
    logits_NV = torch.randn(4, 6, dtype=torch.float16, requires_grad=True) * 1
    with pytest.raises(TypeError, match=r"inplace.*float16"):
        masked_cross_entropy(logits_NV, LABELS, inplace=True)
