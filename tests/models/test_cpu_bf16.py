"""bf16 products without bf16 instructions: the same numbers, in fp32's time."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from conftest import REPOSITORY
from torch import nn

from bigft.models.cpu_bf16 import LinearThroughFp32, multiply_in_fp32

SHAPE = (3, 17, 24)


def tensors(bias: bool) -> list[torch.Tensor | None]:
    torch.manual_seed(0)
    made = [torch.randn(SHAPE), torch.randn(9, SHAPE[-1]), torch.randn(9) if bias else None]
    return [None if t is None else t.bfloat16().requires_grad_() for t in made]


@pytest.mark.parametrize("bias", [True, False])
def test_output_and_gradients_are_as_exact_as_torchs_own(bias: bool) -> None:
    """Against fp64, on the same bf16 operands: no error is larger than that of F.linear."""
    answers = {}
    for name, function in (("ours", LinearThroughFp32.apply), ("torch", F.linear)):
        given = tensors(bias)
        output = function(*given)
        assert output.dtype == torch.bfloat16
        grad = torch.linspace(-1, 1, output.numel()).view_as(output).bfloat16()
        output.backward(grad)
        answers[name] = [output, *(t.grad for t in given if t is not None)]
    wide = [None if t is None else t.detach().double().requires_grad_() for t in tensors(bias)]
    output = F.linear(*wide)
    output.backward(torch.linspace(-1, 1, output.numel()).view_as(output).bfloat16().double())
    exact = [output, *(t.grad for t in wide if t is not None)]
    for ours, theirs, truth in zip(*answers.values(), exact, strict=True):
        assert truth.abs().max() > 0.1
        error, stock = ((t.double() - truth).norm() for t in (ours, theirs))
        assert error <= 1.01 * stock


def test_gradients_are_computed_only_where_they_are_wanted() -> None:
    input, weight, bias = tensors(bias=True)
    assert input is not None
    output = LinearThroughFp32.apply(input.detach(), weight, bias)
    output.sum().backward()
    assert input.grad is None
    assert weight is not None
    assert weight.grad is not None


def test_only_plain_linear_layers_change_and_names_stay() -> None:
    class Special(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input) + 1

    model = nn.Sequential(nn.Linear(4, 4), Special(4, 4)).bfloat16()
    names = list(model.state_dict())
    expected = model(torch.ones(2, 4).bfloat16())
    multiply_in_fp32(model)
    assert list(model.state_dict()) == names
    assert type(model[1]).forward is Special.forward
    assert "forward" not in vars(model[1])
    assert "LinearThroughFp32" in str(model[0](torch.ones(2, 4).bfloat16()).grad_fn)
    torch.testing.assert_close(model(torch.ones(2, 4).bfloat16()), expected)


@pytest.mark.parametrize("capability", ["default", "avx2"])
def test_attention_in_bf16_works_where_torch_uses_fewer_instructions(capability: str) -> None:
    """Fails without `avoid_broken_attention` only on CPUs with AVX512_BF16 or AMX."""
    code = (
        "import torch; from bigft.models.cpu_bf16 import avoid_broken_attention as avoid; avoid();"
        "rows = torch.randn(1, 2, 128, 16).bfloat16().requires_grad_();"
        "torch.nn.functional.scaled_dot_product_attention(rows, rows, rows).sum().backward();"
        "print(torch.backends.cpu.get_cpu_capability(), rows.grad.isfinite().all().item())"
    )
    environ = os.environ | {"ATEN_CPU_CAPABILITY": capability, "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=False
    )
    assert done.stdout == f"{capability.upper()} True\n", done.stderr
