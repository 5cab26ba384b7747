"""One compact check per claim, for every operator: what a planted fault or another CPU path breaks.

They run in pytest (test_contract.py), and as `python -m ops.checks [FAULT …]` in a process of its
own, which prints as JSON what computed and what failed under each fault; "" is no fault.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import torch
from ops.cases import (
    MASKS,
    OPERATORS,
    Case,
    assert_as_exact_as_torch,
    distance,
    make,
    masked_rows,
)

from bigft.ops import linear_cross_entropy, native, reference

SUM_ONLY = "token_classification_head"


def answers_are_exact(device: torch.device) -> None:
    """Loss, logsumexp and every gradient, with every option and none, in every dtype."""
    every_option = {"label_smoothing": 0.1, "z_loss": 0.01, "softcap": 5.0, "scale": 0.25}
    for operator in OPERATORS:
        for dtype in (torch.float64, torch.float32, torch.bfloat16):
            for options in ({}, every_option):
                case = make(operator, dtype=dtype, device=device)
                answers = (side(**options) for side in (case.ours, case.torchs, case.exact))
                assert_as_exact_as_torch(*answers)


def masked_rows_are_never_read(device: torch.device) -> None:
    for operator in OPERATORS:
        for mask in MASKS:
            case = make(operator, mask=mask, device=device)
            masked_N = masked_rows(len(case.rows), mask).to(device)
            poisoned = case.with_rows(case.rows.masked_fill(masked_N[:, None], torch.nan))
            clean, found = case.ours(), poisoned.ours()
            rows_gradient = next(value for name, value in found.items() if name[:5] == "grad_")
            assert not found["loss_N"][masked_N].any()
            assert not found["lse_N"][masked_N].any()
            assert not rows_gradient[masked_N].any()
            for name, value in found.items():
                assert torch.equal(value, clean[name]), f"{operator}: NaN leaks into {name}"


def large_logits_stay_finite(device: torch.device) -> None:
    for operator in OPERATORS:
        for dtype in (torch.float32, torch.bfloat16):
            case = make(operator, data="huge", dtype=dtype, device=device)
            assert_as_exact_as_torch(case.ours(), case.torchs(), case.exact())


def only_its_own_rows_are_read(device: torch.device) -> None:
    """The rows are a view into storage that holds NaN wherever the view does not."""
    for operator in OPERATORS:
        case = make(operator, num_rows=8, mask="none", device=device)
        storage = torch.full((10, case.rows.shape[1] + 8), torch.nan, device=device)
        storage[1:-1, 3:-5] = case.rows
        strided = case.with_rows(storage[1:-1, 3:-5]).ours()
        assert_as_exact_as_torch(strided, case.torchs(), case.exact())


def gradients_follow_the_upstream(device: torch.device) -> None:
    for operator in OPERATORS:
        case = make(operator, device=device)
        upstream = torch.tensor(3.7, device=device)
        sides = (case.ours, case.torchs, case.exact)
        assert_as_exact_as_torch(*(side(upstream) for side in sides))
        if operator != SUM_ONLY:
            upstream_N = torch.linspace(-2, 3, len(case.rows), device=device)
            ours = case.ours(upstream_N, reduction="none")
            torchs, exact = (
                side(row_weight_N=upstream_N) for side in (case.torchs, case.exact)
            )  # the same gradients by way of row weights
            gradients = [name for name in ours if name.startswith("grad_")]
            gradients.append("lse_N")
            sides = ({name: side[name] for name in gradients} for side in (ours, torchs, exact))
            assert_as_exact_as_torch(*sides)


def row_weights_multiply(device: torch.device) -> None:
    for operator in OPERATORS:
        case = make(operator, device=device)
        weight_N = torch.linspace(0, 3, len(case.rows), device=device)
        sides = (case.ours, case.torchs, case.exact)
        assert_as_exact_as_torch(*(side(row_weight_N=weight_N) for side in sides))


def weight_gradient_is_summed_in_fp32(device: torch.device) -> None:
    """One heavy chunk of rows, then fifteen whose share each lies below half a bf16 ulp of it.

    Summed in bf16 the fifteen vanish, and the gradient is off by several ulp.
    """
    random = torch.Generator().manual_seed(0)
    hidden_NH = torch.randn(16 * 1024, 8, generator=random).abs().to(device, torch.bfloat16)
    weight_VH = torch.randn(8, 8, generator=random).to(device, torch.bfloat16)
    labels_N = torch.zeros(len(hidden_NH), dtype=torch.int64, device=device)
    row_weight_N = torch.ones(len(hidden_NH), device=device)
    row_weight_N[:1024] = 512
    case = Case("linear_cross_entropy", {"hidden_NH": hidden_NH, "weight_VH": weight_VH}, labels_N)
    found = case.ours(row_weight_N=row_weight_N, workspace_bytes=1)["grad_weight_VH"]
    exact = case.exact(row_weight_N=row_weight_N)["grad_weight_VH"]
    ulp = torch.finfo(torch.bfloat16).eps * float(exact.abs().max())
    assert distance(found, exact) <= ulp, f"off by {distance(found, exact) / ulp:.2f} ulp"


def dropout_is_the_definitions(device: torch.device) -> None:
    """The same elements fall out in the forward and in the gradients."""
    options = {"dropout_p": 0.4, "seed": torch.tensor([12, -34], device=device)}
    case = make("token_classification_head", hidden_size=21, mask="one row", device=device)
    ours, exact = case.ours(**options), case.exact(**options)
    keep_NH = reference.dropout_mask(options["seed"], *case.rows.shape, 0.4).to(device)
    dropped = case.with_rows(case.rows * keep_NH / 0.6).torchs()
    dropped["grad_hidden_NH"] = dropped["grad_hidden_NH"] * keep_NH / 0.6
    assert_as_exact_as_torch(ours, dropped, exact)
    assert 0.3 < 1 - keep_NH.float().mean() < 0.5
    assert not ours["grad_hidden_NH"][~keep_NH].any()


def frozen_inputs_are_left_out(device: torch.device) -> None:
    for frozen in ("hidden_NH", "weight_VH"):
        case = make("linear_cross_entropy", device=device)
        free = {name: t.requires_grad_(name != frozen) for name, t in case.tensors.items()}
        linear_cross_entropy(**free, labels_N=case.labels_N).loss.backward()
        whole = case.ours()
        assert free.pop(frozen).grad is None
        for name, tensor in free.items():
            assert torch.equal(tensor.grad, whole[f"grad_{name}"])


def micro_batches_add_up(device: torch.device) -> None:
    for operator in OPERATORS:
        case = make(operator, num_rows=48, dtype=torch.float64, device=device)
        whole = case.ours()
        parts = [case.take(slice(start, start + 16)).ours() for start in (0, 16, 32)]
        for name, value in whole.items():
            by_row = name.endswith("_N") or name == f"grad_{next(iter(case.tensors))}"
            sum_of_parts = (torch.cat if by_row else sum)([part[name] for part in parts])
            torch.testing.assert_close(sum_of_parts, value, rtol=1e-12, atol=1e-12)


def a_label_equal_to_ignore_index_is_masked(device: torch.device) -> None:
    for operator in OPERATORS:
        case = make(operator, device=device)
        moved = replace(case, labels_N=torch.where(case.labels_N == -100, 3, case.labels_N))
        others = case.labels_N.masked_fill(case.labels_N == 3, -100)
        found, expected = moved.ours(ignore_index=3), replace(case, labels_N=others).ours()
        for name, value in expected.items():
            assert torch.equal(value, found[name]), name


CHECKS = (
    answers_are_exact,
    masked_rows_are_never_read,
    large_logits_stay_finite,
    only_its_own_rows_are_read,
    gradients_follow_the_upstream,
    row_weights_multiply,
    weight_gradient_is_summed_in_fp32,
    dropout_is_the_definitions,
    frozen_inputs_are_left_out,
    micro_batches_add_up,
    a_label_equal_to_ignore_index_is_masked,
)


def failures() -> dict[str, str]:
    """What each check that fails says, by its name."""
    found = {}
    for check in CHECKS:
        try:
            check(torch.device("cpu"))
        except AssertionError as error:
            found[check.__name__] = str(error)
    return found


if __name__ == "__main__":
    failed = {}
    for fault in sys.argv[1:] or [""]:
        if fault:
            torch.ops.bigft.plant_fault(fault)
        failed[fault] = failures()
    print(json.dumps({"cpu": native.build_info()["cpu"], "failed": failed}))
