"""The native library of the operators: loading it, and saying what it is."""

from __future__ import annotations

import importlib.util
import os

import torch


def _load() -> str:
    """Loads bigft._ops; returns why there is none, or "".

    BIGFT_OPS_LIBRARY names another build of it, for the tests.
    """
    spec = importlib.util.find_spec("bigft._ops")
    path = os.environ.get("BIGFT_OPS_LIBRARY") or (spec and spec.origin)
    if not path:
        return "it was not built: `python setup.py build_ext --inplace` says why"
    try:
        torch.ops.load_library(path)
        _ = torch.ops.bigft.masked_cross_entropy.default
    except (OSError, RuntimeError, AttributeError) as error:  # of another torch, machine or project
        return f"{path} cannot be loaded: {error}"
    return ""


WHY_NOT = _load()
"""Why the native library does not serve; empty if it does."""

BUILT = frozenset(
    (name.removeprefix("bigft::"), kind)
    for name in ([] if WHY_NOT else torch._C._dispatch_get_all_op_names())
    for kind in ("cpu", "cuda")
    if name.startswith("bigft::")
    and torch._C._dispatch_has_kernel_for_dispatch_key(name, kind.upper())
)
"""Each native operator with each kind of device that it was built for."""


def is_built(operator: str, device: torch.device) -> bool:
    """Whether the native operator runs on this device. Where not, reference.py serves."""
    return (operator, device.type) in BUILT


def build_info() -> dict[str, str]:
    """What computes the operators on the CPU and on CUDA, for `bigft env` and the log."""
    if WHY_NOT:
        return {"cpu": f"plain torch ({WHY_NOT})", "cuda": "plain torch"}
    try:
        isa = torch.ops.bigft.built_isa()
    except ValueError as error:
        isa = f"but it will raise: {next(iter(str(error).splitlines()))}"
    has_cuda = any(kind == "cuda" for _, kind in BUILT)
    return {
        "cpu": f"native, {isa}",
        "cuda": "native" if has_cuda else "plain torch (built without CUDA: BIGFT_CUDA)",
    }


def check_labels(device: torch.device) -> None:
    """Raises IndexError if a kernel met a label out of range since the last call. Syncs the host.

    On the CPU the operators raise by themselves; on CUDA such a label makes the loss NaN, so it is
    worth asking where a loss or gradient is not finite.
    """
    if WHY_NOT or device.type == "cpu":
        return
    device = torch.empty(0, device=device).device  # with its index
    row, label = torch.ops.bigft.take_bad_label(device).tolist()
    if row:
        raise IndexError(f"labels_N[{row - 1}] is {label}, which is no class of the model")
