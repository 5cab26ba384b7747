"""What only the linear layer with its loss promises. The rest: test_contract.py."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from ops.cases import Case, assert_as_exact_as_torch, distance, make, needs_native

from bigft.ops import linear_cross_entropy, reference

OPERATOR = "linear_cross_entropy"
SHAPES = [(n, v) for v in (1, 2, 7) for n in (0, 1, 127, 129)]
SHAPES += [(3, v) for v in (50257, 128256, 151936, 262144)]
# One chunk; as many as there can be; tiles over the vocabulary.
WAYS: list[dict[str, Any]] = [{}, {"workspace_bytes": 1}, {"lean": True}]
each_way = pytest.mark.parametrize("way", WAYS, ids=["one chunk", "chunks", "lean"])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("num_rows", "num_classes"), SHAPES)
def test_each_shape(
    num_rows: int, num_classes: int, dtype: torch.dtype, device: torch.device
) -> None:
    case = make(OPERATOR, num_rows, num_classes, hidden_size=4, dtype=dtype, device=device)
    sides = (case.ours, case.torchs, case.exact)
    assert_as_exact_as_torch(*(side(z_loss=0.05) for side in sides), signal=5.0 if num_rows else 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", [(5000, 37), (70, 20011)], ids=str)
@each_way
def test_each_way_is_as_exact_as_torch(
    way: dict[str, Any], shape: tuple[int, int], dtype: torch.dtype, device: torch.device
) -> None:
    """Enough rows for several chunks; enough classes for several tiles, the last one not full."""
    case = make(OPERATOR, *shape, hidden_size=12, dtype=dtype, device=device)
    options = {"label_smoothing": 0.1, "z_loss": 0.01}
    torchs, exact = case.torchs(**options), case.exact(**options)
    assert_as_exact_as_torch(case.ours(**options, **way), torchs, exact)


@each_way
def test_each_way_with_a_softcap_row_weights_and_a_frozen_head(
    way: dict[str, Any], device: torch.device
) -> None:
    case = make(OPERATOR, 2600, 50, hidden_size=12, device=device)
    row_weight_N = torch.linspace(0, 2, 2600, device=device)
    options = {"softcap": 4.0, "row_weight_N": row_weight_N, "scale": 0.1}
    exact = case.exact(**options)
    hidden_NH = case.rows.clone().requires_grad_()
    frozen = {name: t for name, t in case.tensors.items() if name != "hidden_NH"}
    output = linear_cross_entropy(hidden_NH, labels_N=case.labels_N, **frozen, **options, **way)
    output.loss.backward()
    torch.testing.assert_close(output.loss.double(), exact["loss"], rtol=1e-6, atol=0)
    assert exact["grad_hidden_NH"].abs().max() > 0.01
    assert distance(hidden_NH.grad, exact["grad_hidden_NH"]) < 1e-6


@each_way
def test_predictions_are_the_lowest_of_the_largest(
    way: dict[str, Any], device: torch.device
) -> None:
    """Logits with many ties, exact in every dtype, over several chunks and tiles."""
    case = make(OPERATOR, 2600, 3000, data="huge", dtype=torch.bfloat16, device=device)
    output = case.call(predictions=True, **way)
    logits_NV = F.linear(*(tensor.float() for tensor in case.tensors.values()))
    ties_NV = logits_NV == logits_NV.max(dim=1, keepdim=True).values
    assert (ties_NV.sum(dim=1) > 1).all()
    lowest_N = ties_NV.int().argmax(dim=1).masked_fill(case.labels_N == -100, -1)
    assert torch.equal(output.predictions_N, lowest_N)
    assert case.call(**way).predictions_N is None


@each_way
def test_target_rows_may_be_given(way: dict[str, Any], device: torch.device) -> None:
    """Also more of them than have a target: a captured CUDA graph has a fixed number."""
    case = make(OPERATOR, mask="half", device=device)
    expected = case.ours(**way)
    rows_M = reference.target_rows(case.labels_N, -100)
    for rows in (rows_M, torch.arange(len(case.rows), device=device)):
        found = case.ours(target_rows_M=rows, **way)
        for name, value in expected.items():
            assert value.any()
            torch.testing.assert_close(found[name], value, msg=name)


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_a_tied_weight_gets_both_gradients(reduction: str, device: torch.device) -> None:
    case = make(OPERATOR, 40, 11, dtype=torch.float64, mask="half", device=device)
    ids_N = torch.arange(40, device=device) % 11
    gradients = []
    for function in (linear_cross_entropy, reference.linear_cross_entropy):
        weight_VH = case.tensors["weight_VH"].clone().requires_grad_()
        hidden_NH = torch.tanh(F.embedding(ids_N, weight_VH))
        output = function(hidden_NH, weight_VH, case.labels_N, reduction=reduction)
        loss = output.loss_N.sum() if reduction == "none" else output.loss
        (loss * 1.5).backward()
        gradients.append(weight_VH.grad)
    assert gradients[1].abs().max() > 0.1
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("reduction", ["sum", "none"])
@each_way
def test_fp32_weights_under_autocast_get_gradients_that_bf16_cannot_hold(
    way: dict[str, Any], reduction: str, device: torch.device
) -> None:
    """A product in bf16, whose sum over the rows never passes through bf16."""
    needs_native(device)
    if reduction == "none" and way.get("lean"):
        pytest.skip("lean is about gradients that the forward computes")
    case = make(OPERATOR, 2600, 30, device=device)
    rounded = case.to(torch.bfloat16)
    torchs, exact = rounded.torchs(), rounded.exact()
    with torch.autocast(device.type, dtype=torch.bfloat16):
        if reduction == "none":
            upstream_N = torch.ones(len(case.rows), device=device)
            found = case.ours(upstream_N, reduction="none", **way)
            del torchs["loss"], exact["loss"]
        else:
            found = case.ours(**way)
    assert found["grad_hidden_NH"].dtype == torch.float32
    assert_as_exact_as_torch(found, torchs, exact)
    for name in ("grad_weight_VH", "grad_bias_V"):
        gradient = found[name]
        assert gradient.dtype == torch.float32
        held_by_bf16 = gradient.bfloat16().float() == gradient
        assert held_by_bf16.float().mean() < 0.05, f"{name} passed through bf16"


def test_rows_keep_the_weight_itself_and_no_logits(device: torch.device) -> None:
    """ZeRO-3 swaps a Parameter's storage: a cast or a view of it would keep the old one alive."""
    needs_native(device)
    case = make(OPERATOR, 64, 500, device=device)
    weight_VH = torch.nn.Parameter(case.tensors["weight_VH"])
    hidden_NH = case.rows.clone().requires_grad_()
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with (
        torch.autocast(device.type, dtype=torch.bfloat16),
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
    ):
        output = linear_cross_entropy(hidden_NH, weight_VH, case.labels_N, reduction="none")
    large = [tensor for tensor in kept if tensor.numel() >= weight_VH.numel()]
    assert [tensor.data_ptr() for tensor in large] == [weight_VH.data_ptr()]
    assert large[0].dtype == weight_VH.dtype
    output.loss_N.sum().backward()
    assert weight_VH.grad.any()


def test_without_a_bias(device: torch.device) -> None:
    case = make(OPERATOR, device=device)
    tensors = {name: case.tensors[name] for name in ("hidden_NH", "weight_VH")}
    bare = Case(OPERATOR, tensors, case.labels_N)
    assert_as_exact_as_torch(bare.ours(), bare.torchs(), bare.exact())


def test_the_logits_of_all_rows_are_never_held(device: torch.device) -> None:
    """The workspace bound is kept: the largest new tensor is far smaller than [M, V]."""
    needs_native(device)
    if device.type != "cuda":
        pytest.skip("needs torch's peak memory of a CUDA device")
    case = make(OPERATOR, 8192, 32000, dtype=torch.bfloat16, mask="none", device=device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    case.ours(workspace_bytes=1024 * 32000 * 2)
    peak = torch.cuda.max_memory_allocated(device) - before
    assert peak < 8192 * 32000 * 2 / 2
