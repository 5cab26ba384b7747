#!/usr/bin/env python3
"""Masked cross-entropy over logits, forward and backward: bigft beside torch, Liger and quack."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import lru_cache

import torch
import torch.nn.functional as F
from harness import main
from measure import ROWS_AT_A_TIME
from subject import (
    IGNORED,
    Answer,
    Case,
    Goal,
    Inputs,
    Step,
    Subject,
    Work,
    compiled,
    cuda_only,
    labels,
    native,
    peer,
)

FP32, BF16 = torch.float32, torch.bfloat16


def cases(device: str, quick: bool) -> list[Case]:
    if quick:
        return [Case({"N": 16, "V": 1001}, dtype, masked=0.5, quick=True) for dtype in (FP32, BF16)]
    both = ("peaked", "random")
    if device == "cpu":
        goals = (Goal("ours", "median_ms", 8, ("eager",)),)
        return [
            Case({"N": 512, "V": 32000}, dtype, data, masked=0.5, goals=goals)
            for dtype in (FP32, BF16)
            for data in both
        ]
    goals = (Goal("ours in place", "ratio_to_floor", 1.10),)
    return [
        Case({"N": 8192, "V": 128256}, BF16, data, masked=masked, goals=goals)
        for masked in (0.0, 0.5)
        for data in both
    ]


def inputs(case: Case, device: torch.device) -> Inputs:
    generator = torch.Generator(device).manual_seed(0)
    num_rows, num_classes = case.sizes["N"], case.sizes["V"]
    labels_N = labels(case, generator, num_classes)
    logits_NV = torch.randn(num_rows, num_classes, device=device, generator=generator)
    if case.data == "peaked":  # frequent classes likelier, and the targets' probabilities 0 to 1
        logits_NV -= torch.arange(1, num_classes + 1, device=device).log()
        raised_N = 16 * torch.rand(num_rows, device=device, generator=generator)
        logits_NV.scatter_add_(1, labels_N.clamp(min=0)[:, None], raised_N[:, None])
    return Inputs(case, {"logits": logits_NV.to(case.dtype).requires_grad_()}, labels_N)


@lru_cache(maxsize=1)
def in_fp64(inputs: Inputs) -> Answer:
    logits_NV = inputs.tensors["logits"].detach()
    loss = torch.zeros((), dtype=torch.float64, device=logits_NV.device)
    grads = []
    for rows_NV, labels_N in zip(
        logits_NV.split(ROWS_AT_A_TIME), inputs.labels_N.split(ROWS_AT_A_TIME), strict=True
    ):
        rows_NV = rows_NV.double().requires_grad_()
        loss_of_rows = F.cross_entropy(rows_NV, labels_N, reduction="sum")
        grads += torch.autograd.grad(loss_of_rows, rows_NV)
        loss += loss_of_rows.detach()
    return Answer(loss, {"logits": torch.cat(grads)})


def work(case: Case) -> Work:
    """Rows with a target are read, all rows' gradients are written."""
    num_rows = case.num_targets + case.sizes["N"]
    return Work(num_rows * case.sizes["V"] * case.dtype.itemsize, 0)


# -- providers ------------------------------------------------------------------------------------


def ours(inputs: Inputs) -> Step:
    native(inputs, "masked_cross_entropy")
    operator = peer("bigft.ops").masked_cross_entropy
    return Step(lambda: operator(inputs.tensors["logits"], inputs.labels_N).loss)


def ours_in_place(inputs: Inputs) -> Step:
    native(inputs, "masked_cross_entropy")
    operator = peer("bigft.ops").masked_cross_entropy
    return clobbering(
        inputs, lambda logits_NV: operator(logits_NV, inputs.labels_N, inplace=True)[0]
    )


def eager(inputs: Inputs) -> Step:
    """As transformers calls it: in fp32 whatever the logits are."""
    return Step(lambda: cross_entropy(inputs.tensors["logits"], inputs.labels_N))


def eager_not_upcast(inputs: Inputs) -> Step:
    def run() -> torch.Tensor:
        return F.cross_entropy(inputs.tensors["logits"], inputs.labels_N, reduction="sum")

    return Step(run)


def gathered_eager(inputs: Inputs) -> Step:
    def run() -> torch.Tensor:
        rows_M = inputs.target_rows_M
        return cross_entropy(inputs.tensors["logits"][rows_M], inputs.labels_N[rows_M])

    return Step(run)


def torch_compile(inputs: Inputs) -> Step:
    function = compiled(inputs, cross_entropy)
    return Step(lambda: function(inputs.tensors["logits"], inputs.labels_N))


def liger(inputs: Inputs) -> Step:
    cuda_only(inputs)
    operator = peer("liger_kernel.transformers.functional").liger_cross_entropy
    return clobbering(
        inputs, lambda logits_NV: operator(logits_NV, inputs.labels_N, reduction="sum")
    )


def quack(inputs: Inputs) -> Step:
    cuda_only(inputs)
    operator = peer("quack.cross_entropy").cross_entropy
    return Step(lambda: operator(inputs.tensors["logits"], inputs.labels_N, reduction="sum"))


def quack_in_place(inputs: Inputs) -> Step:
    cuda_only(inputs)
    operator = peer("quack.cross_entropy").cross_entropy
    options = {"reduction": "sum", "inplace_backward": True}
    return clobbering(inputs, lambda logits_NV: operator(logits_NV, inputs.labels_N, **options))


def cross_entropy(logits_NV: torch.Tensor, labels_N: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(logits_NV.float(), labels_N, ignore_index=IGNORED, reduction="sum")


def clobbering(inputs: Inputs, loss: Callable[[torch.Tensor], torch.Tensor]) -> Step:
    """A step that overwrites the logits: every run gets a copy, made before the clock starts."""
    copies: list[torch.Tensor] = []
    return Step(
        run=lambda: loss(copies.pop()),
        prepare=lambda: copies.append(inputs.tensors["logits"].clone()),
    )


SUBJECT = Subject(
    name="masked_cross_entropy",
    file=__file__,
    tensors=("logits",),
    baseline="eager",
    providers={
        "ours": ours,
        "ours in place": ours_in_place,
        "eager": eager,
        "eager, not upcast": eager_not_upcast,
        "gathered eager": gathered_eager,
        "torch.compile": torch_compile,
        "liger": liger,
        "quack": quack,
        "quack in place": quack_in_place,
    },
    cases=cases,
    inputs=inputs,
    expected=lambda inputs, answer: in_fp64(inputs),
    work=work,
)

if __name__ == "__main__":
    sys.exit(main(SUBJECT))
