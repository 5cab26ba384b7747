#!/usr/bin/env python3
"""Every operator on small, awkward shapes, forward and backward: what compute-sanitizer watches.

Whether the numbers are right is for tests/ops to say.

    python benchmarks/small_shapes.py [cuda|cpu]
"""

from __future__ import annotations

import itertools
import sys
from functools import partial
from typing import Any

import torch

from bigft import ops
from bigft.ops import native

DTYPES = (torch.float64, torch.float32, torch.bfloat16)
NUM_ROWS, HIDDEN, NUM_LABELS = 5, 33, 9
NUM_CLASSES = (7, 1031, 9001)  # less than a vector; odd; several tiles of a block
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"label_smoothing": 0.1, "z_loss": 1e-3, "softcap": 20.0},
)


def backward(loss: torch.Tensor | None) -> None:
    assert loss is not None
    (2 * loss).backward()  # an upstream gradient that is not 1


def run(device: torch.device) -> int:
    """The number of forwards and backwards."""
    torch.manual_seed(0)
    cases = list(itertools.product(DTYPES, NUM_CLASSES, OPTIONS))
    for dtype, classes, options in cases:
        leaf = partial(torch.randn, device=device, dtype=dtype, requires_grad=True)
        labels_N = torch.tensor([0, -100, classes - 1, classes // 2, -100], device=device)
        rows = ops.masked_cross_entropy(leaf(NUM_ROWS, classes), labels_N, **options)
        backward(rows.loss)
        rows = ops.masked_cross_entropy(
            leaf(NUM_ROWS, classes), labels_N, reduction="none", **options
        )
        backward(rows.loss_N.sum())

        linear = partial(
            ops.linear_cross_entropy, leaf(NUM_ROWS, HIDDEN), leaf(classes, HIDDEN), labels_N
        )
        backward(linear(predictions=True, **options).loss)
        backward(linear(lean=True, **options).loss)
        backward(linear(reduction="none", **options).loss_N.sum())

        labels_N = torch.tensor([0, -100, NUM_LABELS - 1, 4, -100], device=device)
        head = ops.token_classification_head(
            leaf(NUM_ROWS, HIDDEN),
            leaf(NUM_LABELS, HIDDEN),
            leaf(NUM_LABELS),
            labels_N,
            dropout_p=0.1,
            seed=torch.tensor([1, 2], device=device),
            **options,
        )
        backward(head.loss)
    native.check_labels(device)
    return 6 * len(cases)


if __name__ == "__main__":
    chosen = torch.device(sys.argv[1] if len(sys.argv) > 1 else "cuda")
    operators = [name for name in ops.__all__ if name.islower()]
    if not all(native.is_built(name, chosen) for name in operators):
        sys.exit(f"csrc is not built for {chosen}: {native.build_info()}")
    print(f"{run(chosen)} forwards and backwards on {chosen}")
