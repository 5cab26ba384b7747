"""What tests of the emulated kernels share: the structs of rows.h, memory, comparisons."""

from __future__ import annotations

import ctypes
import mmap
from ctypes import Structure, c_double, c_int, c_int64, c_size_t, c_void_p
from dataclasses import dataclass

import torch

DTYPES = [torch.float64, torch.float32, torch.bfloat16, torch.float16]  # in the order of DType

IGNORED = -100
NO_OPTIONS: dict[str, float] = {"label_smoothing": 0.0, "z_loss": 0.0, "softcap": 0.0}
ALL_OPTIONS = {"label_smoothing": 0.1, "z_loss": 0.01, "softcap": 5.0}
MASKS = ["none", "one row", "half", "all"]
# Half a unit in the last place of the stored gradient, and of what is absolute in fp32 or fp64.
ROUNDING = {torch.float64: 1e-12, torch.float32: 2e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}


class LossOptions(Structure):
    _fields_ = (
        ("ignore_index", c_int64),
        ("label_smoothing", c_double),
        ("z_loss", c_double),
        ("softcap", c_double),
    )


class CrossEntropyRows(Structure):
    _fields_ = (
        ("dtype", c_int), ("num_rows", c_int64), ("num_classes", c_int64), ("logits", c_void_p),
        ("logits_stride", c_int64), ("gradient", c_void_p), ("gradient_stride", c_int64),
        ("labels", c_void_p), ("row_weight", c_void_p), ("options", LossOptions),
        ("scale", c_double), ("loss", c_void_p), ("lse", c_void_p), ("bad_label", c_void_p),
    )  # fmt: skip


class CrossEntropyTile(Structure):
    _fields_ = (
        ("dtype", c_int), ("num_rows", c_int64), ("num_classes", c_int64),
        ("num_classes_total", c_int64), ("first_class", c_int64), ("logits", c_void_p),
        ("logits_stride", c_int64), ("gradient", c_void_p), ("gradient_stride", c_int64),
        ("labels", c_void_p), ("options", LossOptions), ("tile_lse", c_void_p),
        ("tile_sum", c_void_p), ("tile_target", c_void_p), ("lse", c_void_p),
        ("upstream", c_void_p), ("bad_label", c_void_p),
    )  # fmt: skip


class TokenHeadRows(Structure):
    _fields_ = (
        ("dtype", c_int), ("num_rows", c_int64), ("hidden_size", c_int64), ("num_labels", c_int64),
        ("hidden", c_void_p), ("hidden_stride", c_int64), ("weight", c_void_p), ("bias", c_void_p),
        ("labels", c_void_p), ("row_weight", c_void_p), ("seed", c_void_p), ("dropout_p", c_double),
        ("options", LossOptions), ("scale", c_double), ("loss", c_void_p), ("lse", c_void_p),
        ("predictions", c_void_p), ("grad_hidden", c_void_p), ("partial_weight", c_void_p),
        ("partial_bias", c_void_p), ("num_partials", c_int64), ("bad_label", c_void_p),
    )  # fmt: skip


@dataclass(frozen=True)
class Emulator:
    library: ctypes.CDLL

    def set_device(
        self, ptx_version: int = 90, shared_limit: int = 227 * 1024, backwards: bool = False
    ) -> None:
        """`backwards`: the last thread has the first turn."""
        self.library.set_device(ptx_version, shared_limit, backwards)

    def call(self, function: str, *arguments: object) -> None:
        """Raises RuntimeError where a thread leaves its memory, misaligns a vector or hangs."""
        if getattr(self.library, function)(*arguments):
            raise RuntimeError(self.library.last_error().decode())


def guarded(tensor: torch.Tensor, spare: int = 0) -> torch.Tensor:
    """A copy, strides kept, whose last element but `spare` ends at memory that must not be touched.

    All around it, gaps between its rows too, lies NaN (or -1).
    """
    span = 1 + sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
    span = 0 if tensor.numel() == 0 else span
    size = tensor.element_size()
    page = mmap.PAGESIZE
    used = -(-max((span + spare) * size, 1) // page) * page
    memory = mmap.mmap(-1, used + page)
    whole = torch.frombuffer(memory, dtype=torch.uint8)
    whole[:used] = 255
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.mprotect(c_void_p(whole.data_ptr() + used), c_size_t(page), 0) == 0
    if tensor.numel() == 0:
        return torch.empty_like(tensor)
    flat = torch.frombuffer(memory, dtype=tensor.dtype, count=used // size)
    first = used // size - span - spare
    copy = flat.as_strided(tensor.shape, tensor.stride(), first)
    return copy.copy_(tensor)


def masked(labels_N: torch.Tensor, mask: str, ignored: int = IGNORED) -> torch.Tensor:
    labels_N = labels_N.clone()
    n = labels_N.numel()
    if mask == "one row":
        labels_N[: n // 2] = labels_N[n // 2 + 1 :] = ignored
    elif mask == "half":
        labels_N[torch.arange(n) % 2 == 1] = ignored
    elif mask == "all":
        labels_N[:] = ignored
    return labels_N


def acc(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


def options_of(options: dict[str, float], ignored: int = IGNORED) -> LossOptions:
    return LossOptions(ignored, *(options[key] for key in NO_OPTIONS))


def exact(tensor: torch.Tensor) -> torch.Tensor:
    """An fp64 copy that takes a gradient."""
    return tensor.to(torch.float64, copy=True).requires_grad_()


def assert_near(ours: torch.Tensor, true: torch.Tensor, relative: float, size: float = 1.0) -> None:
    """Entries agree to `relative` of themselves and a few fp32 roundings of `size`."""
    absolute = (1e-13 if ours.dtype == torch.float64 else 2e-6) * size
    if ours.dtype == torch.float16:
        absolute = max(absolute, 2**-24)  # its smallest step
    torch.testing.assert_close(ours.double(), true, rtol=relative, atol=absolute, equal_nan=True)
