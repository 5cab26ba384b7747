#!/usr/bin/env python3
"""Linear layer and cross-entropy in one, forward and backward: bigft beside torch, Liger, quack,
cut-cross-entropy and TRL."""

from __future__ import annotations

import sys
from functools import lru_cache, partial
from typing import Any

import torch
import torch.nn.functional as F
from harness import main
from measure import ROWS_AT_A_TIME
from subject import (
    IGNORED,
    Absent,
    Answer,
    Case,
    Goal,
    Inputs,
    Step,
    Subject,
    Work,
    compiled,
    compiling,
    cuda_only,
    labels,
    native,
    peer,
)

FP32, BF16 = torch.float32, torch.bfloat16
TORCH_PLAIN, TORCH_CHUNKED = "F.linear_cross_entropy", "F.linear_cross_entropy, chunked"
CUT, CUT_FILTERED = "cut-cross-entropy, exact", "cut-cross-entropy, filtered"
CPU_GOALS = (
    Goal("ours", "median_ms", 1.6, (TORCH_PLAIN, TORCH_CHUNKED)),
    Goal("ours", "median_ms", 1.1, ("gathered eager",)),
    Goal("ours", "extra_mib", 10, ("gathered eager",)),
)
# What 35, 18.3 and 12 ms on an H200 are to the floors of 33.7, 16.8 and 11.4 ms there.
CUDA_GOALS = {
    "nothing masked": (Goal("ours", "ratio_to_floor", 1.04),),
    "half masked": (
        Goal("ours", "ratio_to_floor", 1.09),
        Goal("ours", "median_ms", 1.85, ("liger", "quack")),
        Goal("ours", "median_ms", 1.0, (CUT,)),
        Goal("ours", "peak_mib", 2130),
        Goal("ours lean", "peak_mib", 1300),
        Goal("ours lean", "ratio_to_floor", 4 / 3),
    ),
    "frozen": (Goal("ours", "ratio_to_floor", 1.05),),
}


def cases(device: str, quick: bool) -> list[Case]:
    if quick:
        sizes = {"N": 32, "H": 64, "V": 1001}
        return [
            Case(sizes, FP32, masked=0.5, quick=True),
            Case(sizes, BF16, masked=0.5, quick=True),
            Case(sizes, FP32, masked=0.5, frozen=True, quick=True),
        ]
    if device == "cpu":
        return [
            Case({"N": 1024, "H": 1024, "V": 32000}, dtype, data, masked=0.5, goals=CPU_GOALS)
            for dtype in (FP32, BF16)
            for data in ("peaked", "random")
        ]
    case = partial(Case, {"N": 8192, "H": 4096, "V": 128256}, BF16)
    half_masked = CUDA_GOALS["half masked"]
    return [
        case(goals=CUDA_GOALS["nothing masked"]),
        case(masked=0.5, goals=half_masked),
        case("random", masked=0.5, goals=half_masked),
        case(masked=0.5, frozen=True, goals=CUDA_GOALS["frozen"]),
    ]


def inputs(case: Case, device: torch.device) -> Inputs:
    """Logits of standard deviation 1; peaked: and the targets' probabilities spread over 0 to 1."""
    generator = torch.Generator(device).manual_seed(0)
    num_rows, hidden_size, num_classes = (case.sizes[letter] for letter in "NHV")
    labels_N = labels(case, generator, num_classes)
    hidden_NH = torch.randn(num_rows, hidden_size, device=device, generator=generator)
    weight_VH = torch.randn(num_classes, hidden_size, device=device, generator=generator)
    weight_VH /= hidden_size**0.5
    if case.data == "peaked":
        raised_N = 20 * torch.rand(num_rows, device=device, generator=generator)
        hidden_NH += raised_N[:, None] * weight_VH[labels_N.clamp(min=0)]
    hidden_NH = hidden_NH.to(case.dtype).requires_grad_()
    weight_VH = weight_VH.to(case.dtype).requires_grad_(not case.frozen)
    return Inputs(case, {"hidden": hidden_NH, "weight": weight_VH}, labels_N)


@lru_cache(maxsize=1)
def in_fp64(inputs: Inputs) -> Answer:
    hidden_NH, weight_VH = (
        tensor.detach().double().requires_grad_(tensor.requires_grad)
        for tensor in inputs.tensors.values()
    )
    loss = torch.zeros((), dtype=torch.float64, device=hidden_NH.device)
    for rows_NH, labels_N in zip(
        hidden_NH.split(ROWS_AT_A_TIME), inputs.labels_N.split(ROWS_AT_A_TIME), strict=True
    ):
        loss_of_rows = F.cross_entropy(rows_NH @ weight_VH.T, labels_N, reduction="sum")
        loss_of_rows.backward()  # adds to the leaves' gradients
        loss += loss_of_rows.detach()
    leaves = {"hidden": hidden_NH, "weight": weight_VH}
    return Answer(loss, {name: leaf.grad for name, leaf in leaves.items() if leaf.grad is not None})


def work(case: Case) -> Work:
    """GEMMs over the rows with a target: the logits are read and written."""
    num_logits = case.num_targets * case.sizes["V"]
    num_gemms = 2 if case.frozen else 3
    return Work(
        num_bytes=2 * num_logits * case.dtype.itemsize,
        num_flops=num_gemms * 2 * num_logits * case.sizes["H"],
    )


# -- providers ------------------------------------------------------------------------------------


def ours(inputs: Inputs, **options: Any) -> Step:
    native(inputs, "linear_cross_entropy")
    operator = peer("bigft.ops").linear_cross_entropy
    hidden_NH, weight_VH = inputs.tensors.values()
    options["target_rows_M"] = inputs.target_rows_M
    return Step(lambda: operator(hidden_NH, weight_VH, inputs.labels_N, **options).loss)


def eager(inputs: Inputs) -> Step:
    """As transformers: the logits of all rows, then the loss in fp32."""
    hidden_NH, weight_VH = inputs.tensors.values()
    return Step(lambda: linear_and_loss(hidden_NH, weight_VH, inputs.labels_N))


def gathered_eager(inputs: Inputs) -> Step:
    hidden_NH, weight_VH = inputs.tensors.values()

    def run() -> torch.Tensor:
        rows_M = inputs.target_rows_M
        return linear_and_loss(hidden_NH[rows_M], weight_VH, inputs.labels_N[rows_M])

    return Step(run)


def torch_compile(inputs: Inputs) -> Step:
    hidden_NH, weight_VH = inputs.tensors.values()
    function = compiled(inputs, linear_and_loss)
    return Step(lambda: function(hidden_NH, weight_VH, inputs.labels_N))


def torch_linear_cross_entropy(inputs: Inputs, chunked: bool) -> Step:
    operator = getattr(F, "linear_cross_entropy", None)
    if operator is None:
        raise Absent(f"torch {torch.__version__} has no F.linear_cross_entropy")
    hidden_NH, weight_VH = inputs.tensors.values()
    options = torch.nn.LinearCrossEntropyOptions() if chunked else None
    labels_N = inputs.labels_N
    return Step(lambda: operator(hidden_NH, weight_VH, labels_N, reduction="sum", options=options))


def liger(inputs: Inputs) -> Step:
    cuda_only(inputs)
    operator = peer("liger_kernel.transformers.functional").liger_fused_linear_cross_entropy
    hidden_NH, weight_VH = inputs.tensors.values()
    return Step(lambda: operator(hidden_NH, weight_VH, inputs.labels_N, reduction="sum"))


def quack(inputs: Inputs) -> Step:
    cuda_only(inputs)
    operator = peer("quack.linear_cross_entropy").chunked_linear_cross_entropy
    hidden_NH, weight_VH = inputs.tensors.values()
    return Step(lambda: operator(hidden_NH, weight_VH, inputs.labels_N, reduction="sum"))


def cut_cross_entropy(inputs: Inputs, filter_eps: str | None) -> Step:
    """filter_eps: below which gradients are dropped (their default); None: nowhere."""
    cuda_only(inputs)
    operator = peer("cut_cross_entropy").linear_cross_entropy
    hidden_NH, weight_VH = inputs.tensors.values()
    options = {"reduction": "sum", "filter_eps": filter_eps}
    return Step(lambda: operator(hidden_NH, weight_VH, inputs.labels_N, **options))


def cut_cross_entropy_compiled(inputs: Inputs) -> Step:
    """Their path without Triton kernels: rows with a target selected, the rest by torch.compile."""
    compiling(inputs)
    operator = peer("cut_cross_entropy").linear_cross_entropy
    hidden_NH, weight_VH = inputs.tensors.values()
    options = {"reduction": "sum", "impl": "torch_compile"}
    return Step(lambda: operator(hidden_NH, weight_VH, inputs.labels_N, **options))


def trl(inputs: Inputs) -> Step:
    """TRL's own function, given the rows with a target, as its SFTTrainer does on a GPU (on a CPU
    it gives all rows); only its log-probabilities are asked for, in its own chunks."""
    operator = peer("trl.kernels").ChunkedLogProbFunction
    chunk = peer("trl.trainer.utils")._CHUNKED_LOGPROB_CHUNK_SIZE
    hidden_NH, weight_VH = inputs.tensors.values()

    def run() -> torch.Tensor:
        mask_N = inputs.labels_N != IGNORED
        hidden_MH, labels_M = hidden_NH[mask_N], inputs.labels_N[mask_N]
        return -operator.apply(
            hidden_MH, weight_VH, None, labels_M, 1.0, chunk, None, 1.0, ()
        )[0].sum()  # fmt: skip

    return Step(run)


def linear_and_loss(
    hidden_NH: torch.Tensor, weight_VH: torch.Tensor, labels_N: torch.Tensor
) -> torch.Tensor:
    logits_NV = F.linear(hidden_NH, weight_VH).float()
    return F.cross_entropy(logits_NV, labels_N, ignore_index=IGNORED, reduction="sum")


SUBJECT = Subject(
    name="linear_cross_entropy",
    file=__file__,
    tensors=("hidden", "weight"),
    baseline="eager",
    providers={
        "ours": ours,
        "ours lean": partial(ours, lean=True),
        "eager": eager,
        "gathered eager": gathered_eager,
        "torch.compile": torch_compile,
        TORCH_PLAIN: partial(torch_linear_cross_entropy, chunked=False),
        TORCH_CHUNKED: partial(torch_linear_cross_entropy, chunked=True),
        "liger": liger,
        "quack": quack,
        CUT: partial(cut_cross_entropy, filter_eps=None),
        CUT_FILTERED: partial(cut_cross_entropy, filter_eps="high"),
        "cut-cross-entropy, torch_compile": cut_cross_entropy_compiled,
        "trl, rows selected": trl,
    },
    cases=cases,
    inputs=inputs,
    expected=lambda inputs, answer: in_fp64(inputs),
    work=work,
)

if __name__ == "__main__":
    sys.exit(main(SUBJECT))
