"""What csrc refuses, refused in the same words where plain torch serves."""

from __future__ import annotations

import math

import torch

FLOATING = (torch.float32, torch.bfloat16, torch.float16, torch.float64)
MIN_LABELS, MAX_LABELS = 2, 128  # as csrc/token_classification_head/op.h


def check_logits(
    logits_NV: torch.Tensor,
    labels_N: torch.Tensor,
    row_weight_N: torch.Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    softcap: float,
) -> None:
    """Raises TypeError for a dtype, ValueError for a shape or an option, IndexError for a label
    that lies on the CPU."""
    _floating(logits_NV, "logits_NV")
    _shape(logits_NV, "logits_NV", None, None)
    _rows(logits_NV, logits_NV.shape[1], labels_N, row_weight_N, ignore_index)
    _options(label_smoothing, z_loss, softcap)


def check_linear(
    hidden_NH: torch.Tensor,
    weight_VH: torch.Tensor,
    bias_V: torch.Tensor | None,
    labels_N: torch.Tensor,
    target_rows_M: torch.Tensor | None,
    row_weight_N: torch.Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    softcap: float,
) -> None:
    """As check_logits; target_rows_M as csrc does, on the CPU."""
    _linear(hidden_NH, weight_VH, "weight_VH", bias_V, "bias_V")
    _rows(hidden_NH, weight_VH.shape[0], labels_N, row_weight_N, ignore_index)
    _options(label_smoothing, z_loss, softcap)
    if target_rows_M is not None:
        _target_rows(target_rows_M, labels_N, ignore_index)


def check_token_head(
    hidden_NH: torch.Tensor,
    weight_CH: torch.Tensor,
    bias_C: torch.Tensor | None,
    labels_N: torch.Tensor,
    dropout_p: float,
    seed: torch.Tensor | None,
    row_weight_N: torch.Tensor | None,
    ignore_index: int,
    label_smoothing: float,
    z_loss: float,
    softcap: float,
) -> None:
    """As check_logits."""
    _floating(hidden_NH, "hidden_NH")
    if hidden_NH.dtype == torch.float16:
        raise TypeError(
            "hidden_NH must not be float16: gradients would underflow before the loss scale is "
            "applied; use bfloat16 or float32"
        )
    _linear(hidden_NH, weight_CH, "weight_CH", bias_C, "bias_C")
    num_labels = weight_CH.shape[0]
    if not MIN_LABELS <= num_labels <= MAX_LABELS:
        raise ValueError(
            f"weight_CH must have {MIN_LABELS} to {MAX_LABELS} rows, one per label, "
            f"not {num_labels}"
        )
    _rows(hidden_NH, num_labels, labels_N, row_weight_N, ignore_index)
    _options(label_smoothing, z_loss, softcap)
    if not 0 <= dropout_p < 1:
        raise ValueError(f"dropout_p must be in [0, 1), not {dropout_p}")
    if dropout_p > 0:
        if seed is None:
            raise ValueError("seed must be given where dropout_p is not 0")
        if seed.dtype != torch.int64:
            raise TypeError(f"seed must be int64, not {seed.dtype}")
        _shape(seed, "seed", 2)


def _linear(
    hidden_NH: torch.Tensor,
    weight: torch.Tensor,
    weight_name: str,
    bias: torch.Tensor | None,
    bias_name: str,
) -> None:
    _floating(hidden_NH, "hidden_NH")
    _shape(hidden_NH, "hidden_NH", None, None)
    _shape(weight, weight_name, None, hidden_NH.shape[1])
    if bias is not None:
        _shape(bias, bias_name, weight.shape[0])
    for parameter, name in ((weight, weight_name), (bias, bias_name)):
        is_master = hidden_NH.itemsize == 2
        fitting = (hidden_NH.dtype, torch.float32) if is_master else (hidden_NH.dtype,)
        if parameter is not None and parameter.dtype not in fitting:
            raise TypeError(
                f"{name} must be {hidden_NH.dtype} as hidden_NH, or float32 beside 16 bits, "
                f"not {parameter.dtype}"
            )


def _rows(
    beside: torch.Tensor,
    num_classes: int,
    labels_N: torch.Tensor,
    row_weight_N: torch.Tensor | None,
    ignore_index: int,
) -> None:
    if labels_N.dtype not in (torch.int64, torch.int32):
        raise TypeError(f"labels_N must be int64 or int32, not {labels_N.dtype}")
    _shape(labels_N, "labels_N", beside.shape[0])
    if row_weight_N is not None:
        if row_weight_N.dtype != torch.float32:
            raise TypeError(f"row_weight_N must be float32, not {row_weight_N.dtype}")
        _shape(row_weight_N, "row_weight_N", beside.shape[0])
    if labels_N.device.type != "cpu":
        return  # looking at them would sync the host: the loss will be NaN
    is_class_N = (labels_N >= 0) & (labels_N < num_classes)
    bad = (~is_class_N & (labels_N != ignore_index)).nonzero()
    if len(bad):
        raise IndexError(
            f"labels_N[{int(bad[0])}] is {int(labels_N[bad[0]])}, which is neither in "
            f"[0, {num_classes}) nor ignore_index ({ignore_index})"
        )


def _target_rows(rows_M: torch.Tensor, labels_N: torch.Tensor, ignore_index: int) -> None:
    if rows_M.dtype != torch.int64:
        raise TypeError(f"target_rows_M must be int64, not {rows_M.dtype}")
    _shape(rows_M, "target_rows_M", None)
    if rows_M.device.type != "cpu":
        return  # looking at them would sync the host
    last = -1
    for at, row in enumerate(rows_M.tolist()):
        if not last < row < len(labels_N):
            raise IndexError(
                f"target_rows_M[{at}] is {row}; rows must ascend and lie in [0, {len(labels_N)})"
            )
        last = row
    num_targets = int((labels_N != ignore_index).sum())
    num_named = int((labels_N[rows_M] != ignore_index).sum())
    if num_named != num_targets:
        raise ValueError(
            f"target_rows_M names {num_named} of the {num_targets} rows whose label is not "
            f"ignore_index ({ignore_index})"
        )


def _options(label_smoothing: float, z_loss: float, softcap: float) -> None:
    if not 0 <= label_smoothing < 1:
        raise ValueError(f"label_smoothing must be in [0, 1), not {label_smoothing}")
    if not 0 <= z_loss < math.inf:
        raise ValueError(f"z_loss must be 0 or more, not {z_loss}")
    largest, smallest = torch.finfo(torch.float32).max, torch.finfo(torch.float32).smallest_normal
    if softcap != 0 and not smallest <= softcap <= largest:
        raise ValueError(
            f"softcap must be 0 (none) or a positive number of float32's range, not {softcap}"
        )


def _floating(tensor: torch.Tensor, name: str) -> None:
    if tensor.dtype not in FLOATING:
        raise TypeError(f"{name} must be float32, bfloat16, float16 or float64, not {tensor.dtype}")


def _shape(tensor: torch.Tensor, name: str, *shape: int | None) -> None:
    """None: any size."""
    fits = tensor.dim() == len(shape)
    fits = fits and all(
        want in (None, size) for want, size in zip(shape, tensor.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{name} must have the shape [{wanted}], not {list(tensor.shape)}")
