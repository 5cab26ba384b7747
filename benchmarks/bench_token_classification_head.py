#!/usr/bin/env python3
"""The token-classification head, forward and backward: dropout, linear, cross-entropy, argmax."""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from harness import main
from subject import (
    IGNORED,
    Answer,
    Case,
    Goal,
    Inputs,
    Step,
    Subject,
    Work,
    Wrong,
    compiled,
    labels,
    native,
    peer,
)

FP32, BF16 = torch.float32, torch.bfloat16
DROPOUT_P = 0.1
CPU_GOALS = (Goal("ours", "median_ms", 3, ("eager",)),)
CUDA_GOALS = (
    Goal("ours", "ratio_to_floor", 1.5),
    Goal("ours", "median_ms", 3, ("torch.compile",)),
)


def cases(device: str, quick: bool) -> list[Case]:
    if quick:
        sizes = {"N": 256, "H": 96, "C": 9}
        return [Case(sizes, dtype, masked=0.5, quick=True) for dtype in (FP32, BF16)]
    if device == "cpu":
        sizes = {"N": 16384, "H": 384, "C": 9}
        return [
            Case(sizes, dtype, masked=masked, goals=CPU_GOALS)
            for dtype in (FP32, BF16)
            for masked in (0.0, 0.5)
        ]
    shapes = ((16384, 768, 9), (32768, 1024, 17), (65536, 4096, 128))
    return [Case(dict(zip("NHC", shape, strict=True)), BF16, goals=CUDA_GOALS) for shape in shapes]


def inputs(case: Case, device: torch.device) -> Inputs:
    """A trained head: most targets are likely, but not certain."""
    generator = torch.Generator(device).manual_seed(0)
    num_rows, hidden_size, num_labels = (case.sizes[letter] for letter in "NHC")
    labels_N = labels(case, generator, num_labels)
    hidden_NH = torch.randn(num_rows, hidden_size, device=device, generator=generator)
    weight_CH = torch.randn(num_labels, hidden_size, device=device, generator=generator)
    weight_CH /= hidden_size**0.5
    raised_N = 6 * torch.rand(num_rows, device=device, generator=generator)
    hidden_NH += raised_N[:, None] * weight_CH[labels_N.clamp(min=0)]
    bias_C = torch.randn(num_labels, device=device, generator=generator)
    tensors = {"hidden": hidden_NH, "weight": weight_CH, "bias": bias_C}
    leaves = {name: tensor.to(case.dtype).requires_grad_() for name, tensor in tensors.items()}
    return Inputs(case, leaves, labels_N)


def in_fp64(inputs: Inputs, answer: Answer) -> Answer:
    """With the mask that the provider drew, read off its gradient: it is 0 where dropped."""
    kept_NH = answer.gradients["hidden"] != 0
    share = float(kept_NH[inputs.target_rows_M].double().mean())
    spread = (DROPOUT_P / (inputs.target_rows_M.numel() * inputs.case.sizes["H"])) ** 0.5
    if not abs(share - (1 - DROPOUT_P)) <= 6 * spread:
        raise Wrong(f"dropout keeps {share:.4f} of the elements instead of {1 - DROPOUT_P}")
    leaves = [tensor.detach().double().requires_grad_() for tensor in inputs.tensors.values()]
    hidden_NH, weight_CH, bias_C = leaves
    dropped_NH = hidden_NH * kept_NH / (1 - DROPOUT_P)
    logits_NC = F.linear(dropped_NH, weight_CH, bias_C)
    loss = F.cross_entropy(logits_NC, inputs.labels_N, ignore_index=IGNORED, reduction="sum")
    gradients = torch.autograd.grad(loss, leaves)
    return Answer(loss.detach(), dict(zip(inputs.tensors, gradients, strict=True)))


def work(case: Case) -> Work:
    """Rows with a target are read, all rows' gradients are written; logits, dHidden, dWeight."""
    num_elements = case.sizes["H"] * case.dtype.itemsize
    return Work(
        num_bytes=(case.num_targets + case.sizes["N"]) * num_elements,
        num_flops=6 * case.num_targets * case.sizes["H"] * case.sizes["C"],
    )


# -- providers: each computes the loss, its gradients and the predictions -------------------------


def ours(inputs: Inputs) -> Step:
    native(inputs, "token_classification_head")
    operator = peer("bigft.ops").token_classification_head
    seed = torch.tensor([42, 0], device=inputs.labels_N.device)
    tensors = tuple(inputs.tensors.values())
    return Step(lambda: operator(*tensors, inputs.labels_N, dropout_p=DROPOUT_P, seed=seed).loss)


def eager(inputs: Inputs) -> Step:
    hidden_NH, weight_CH, bias_C = inputs.tensors.values()
    return Step(lambda: dropout_linear_and_loss(hidden_NH, weight_CH, bias_C, inputs.labels_N)[0])


def torch_compile(inputs: Inputs) -> Step:
    function = compiled(inputs, dropout_linear_and_loss)
    tensors = tuple(inputs.tensors.values())
    return Step(lambda: function(*tensors, inputs.labels_N)[0])


def dropout_linear_and_loss(
    hidden_NH: torch.Tensor, weight_CH: torch.Tensor, bias_C: torch.Tensor, labels_N: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """What transformers' heads do in training, and the predictions for the metric."""
    dropped_NH = F.dropout(hidden_NH, DROPOUT_P)
    logits_NC = F.linear(dropped_NH, weight_CH, bias_C).float()
    loss = F.cross_entropy(logits_NC, labels_N, ignore_index=IGNORED, reduction="sum")
    return loss, logits_NC.detach().argmax(dim=-1)


SUBJECT = Subject(
    name="token_classification_head",
    file=__file__,
    tensors=("hidden", "weight", "bias"),
    baseline="eager",
    providers={"ours": ours, "eager": eager, "torch.compile": torch_compile},
    cases=cases,
    inputs=inputs,
    expected=in_fp64,
    work=work,
    combine=max,  # one pass: the multiplications hide behind the bytes, or these behind them
)

if __name__ == "__main__":
    sys.exit(main(SUBJECT))
