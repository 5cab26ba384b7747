"""What the public operators share: checks that need no kernel, and the rule of gradients."""

from __future__ import annotations

import torch

LOWERED = (torch.float32, torch.bfloat16, torch.float16)


def check_call(
    reduction: str, scale: float, row_weight_N: torch.Tensor | None, **tensors: torch.Tensor | None
) -> None:
    """Raises ValueError for what the operators cannot honour. tensors: all on one device."""
    tensors["row_weight_N"] = row_weight_N
    (first, device), *others = (
        (name, tensor.device) for name, tensor in tensors.items() if tensor is not None
    )
    for name, other in others:
        if other != device:
            raise ValueError(f"{name} must be on {first}'s device {device}, not on {other}")
    if reduction not in ("sum", "none"):
        raise ValueError(f'reduction must be "sum" or "none", not {reduction!r}')
    if reduction == "none" and scale != 1:
        raise ValueError(
            f'scale multiplies the sum; with reduction "none" it must be 1, not {scale}: '
            "multiply loss_N"
        )
    if row_weight_N is not None and row_weight_N.requires_grad:
        raise ValueError("row_weight_N must not require a gradient: detach it")


def wants_grad(tensor: torch.Tensor | None) -> bool:
    """A custom operator cannot see autograd's state, so it is told what to compute."""
    return tensor is not None and tensor.requires_grad and torch.is_grad_enabled()


def check_backward(
    name: str,
    already_used: bool,
    instead: str = 'call it with reduction="none", which computes them again',
) -> None:
    """Raises RuntimeError for a backward of a backward, or a second one of gradients in place."""
    if torch.is_grad_enabled():
        raise RuntimeError(f"{name} is differentiable once: create_graph is not supported")
    if already_used:
        raise RuntimeError(
            f"{name} gave its gradients away in the first backward; for a second one {instead}"
        )


def scaled(gradient: torch.Tensor, upstream: torch.Tensor) -> torch.Tensor:
    """gradient * upstream: in place, and without touching it where upstream is 1."""
    if torch.compiler.is_compiling():
        return gradient * upstream.to(gradient.dtype)  # a graph may run its backward again
    gradient = gradient.detach()  # an output of the operator, whose history ends here
    torch.ops.bigft.scale_(gradient, upstream)
    return gradient


def autocast_to(hidden: torch.Tensor) -> torch.Tensor:
    """hidden in the dtype that F.linear would compute in here. Weights are cast by the operator,
    so that their gradients need not pass through it."""
    kind = hidden.device.type
    if torch.is_autocast_enabled(kind) and hidden.dtype in LOWERED:
        return hidden.to(torch.get_autocast_dtype(kind))
    return hidden
