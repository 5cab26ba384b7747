"""bf16 matrix products on CPUs: where there are no instructions for them, and where there are.

Without, oneDNN emulates each product, four to five times as slow as one in fp32. Multiplying in
fp32 and rounding the result once keeps what bf16 means (bf16 operands, fp32 sums) at fp32's speed.

With, bitsandbytes takes them for 4-bit weights in evaluation, whatever the model computes in.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from bigft.runtime.process_group import choose_accelerator


def emulates_bf16(device: torch.device) -> bool:
    """Whether the device is a CPU that does not multiply bf16 numbers itself (AVX512_BF16, AMX)."""
    return device.type == "cpu" and not _has_instructions()


def _has_instructions() -> bool:
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def avoid_broken_attention() -> None:
    """Switches torch's fused attention off where it fails in bf16: on a CPU with instructions for
    it, of which ATEN_CPU_CAPABILITY lets torch's own kernels use none.

    torch 2.13 then raises "pack_vnni2 is only supported when avx512 is supported" for rows of 64
    tokens and more. Without the fused kernel it multiplies the matrices one by one.
    """
    lowered = torch.backends.cpu.get_cpu_capability() in ("DEFAULT", "AVX2")
    if lowered and _has_instructions() and choose_accelerator() == "cpu":
        torch.backends.cuda.enable_flash_sdp(False)  # of the CPU too


def multiply_in_fp32(model: nn.Module) -> None:
    """Gives every plain nn.Linear of the model a forward through `LinearThroughFp32`.

    Parameters and their names stay. Subclasses keep the forward that they were written for.
    """
    for module in model.modules():
        if type(module) is nn.Linear:
            module.forward = MethodType(_forward, module)  # type: ignore[method-assign]


def _forward(linear: nn.Linear, input: torch.Tensor) -> torch.Tensor:
    output: torch.Tensor = LinearThroughFp32.apply(input, linear.weight, linear.bias)
    return output


def keep_4bit_weights(model: nn.Module) -> None:
    """Lets an evaluation multiply with a 4-bit base as training does, on every CPU.

    On CPUs with AVX512_BF16, bitsandbytes 0.50 packs each 4-bit weight anew in its first forward in
    evaluation, in place, and multiplies in bf16 from then on. In training that follows, the packed
    weight has no gradient for what lies below it, and under ZeRO-3 it is read in the wrong layout:
    losses were 3 % off.
    """
    from bitsandbytes.nn.modules import Linear4bit

    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


class LinearThroughFp32(torch.autograd.Function):
    """F.linear for bf16 tensors: fp32 products and sums, one rounding to the input's dtype.

    Saves the weight parameter itself, never a cast of it: ZeRO-3 swaps its storage.
    """

    @staticmethod
    def forward(
        ctx: Any, input: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None
    ) -> torch.Tensor:
        ctx.save_for_backward(input, weight)
        ctx.has_bias = bias is not None
        wide = None if bias is None else bias.float()
        return F.linear(input.float(), weight.float(), wide).to(input.dtype)

    @staticmethod
    def backward(
        ctx: Any, grad_output: torch.Tensor
    ) -> tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None]:
        input, weight = ctx.saved_tensors
        wide = grad_output.float().flatten(0, -2)
        grad_input = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_input = (wide @ weight.float()).to(input.dtype).view_as(input)
        if ctx.needs_input_grad[1]:
            grad_weight = (wide.T @ input.float().flatten(0, -2)).to(weight.dtype)
        if ctx.has_bias and ctx.needs_input_grad[2]:
            grad_bias = wide.sum(0).to(weight.dtype)
        return grad_input, grad_weight, grad_bias
