"""What the operators' tests share: inputs, torch's own answer, and how two answers are compared."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from bigft import ops
from bigft.ops import CrossEntropy, native, reference

OPERATORS = ("masked_cross_entropy", "linear_cross_entropy", "token_classification_head")
DATA = ("random", "confident", "huge", "huge and right", "minus_infinity", "dominant")
MASKS = ("none", "one row", "half", "99 %", "all")

# How much further from fp64 than torch's answer ours may lie, in the worst element. Not 1: the
# worst of some hundred sums in two orders differs by chance, seen up to 2.8 times.
TIMES_TORCH = 3.0
# Where torch happens to be exact: one rounding to the dtype, this many of what it is computed in.
ULPS = 4

Answer = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Case:
    """One call: `tensors` are the arguments that have a gradient, the rows first."""

    operator: str
    tensors: dict[str, torch.Tensor]
    labels_N: torch.Tensor

    @property
    def rows(self) -> torch.Tensor:
        return next(iter(self.tensors.values()))

    @property
    def dtype(self) -> torch.dtype:
        return self.rows.dtype

    def with_rows(self, rows: torch.Tensor) -> Case:
        name = next(iter(self.tensors))
        return replace(self, tensors={**self.tensors, name: rows})

    def take(self, rows: slice) -> Case:
        return replace(self.with_rows(self.rows[rows]), labels_N=self.labels_N[rows])

    def to(self, dtype: torch.dtype) -> Case:
        return replace(self, tensors={name: t.to(dtype) for name, t in self.tensors.items()})

    def call(self, **options: Any) -> Any:
        return getattr(ops, self.operator)(**self.tensors, labels_N=self.labels_N, **options)

    def ours(self, upstream: torch.Tensor | None = None, **options: Any) -> Answer:
        """Where there is a target no gradient is all zeros: two of those would be equal, too."""
        found = answer(getattr(ops, self.operator), self, upstream, **options)
        if (self.labels_N != options.get("ignore_index", -100)).any():
            assert all(found[f"grad_{name}"].any() for name in self.tensors)
        return found

    def exact(self, upstream: torch.Tensor | None = None, **options: Any) -> Answer:
        """The definition in fp64, on the same numbers."""
        function = getattr(reference, self.operator)
        upstream = None if upstream is None else upstream.double()
        return answer(function, self.to(torch.float64), upstream, **options)

    def torchs(self, upstream: torch.Tensor | None = None, **options: Any) -> Answer:
        return answer(stock, self, upstream, **options)


def make(
    operator: str,
    num_rows: int = 33,
    num_classes: int = 9,
    *,
    hidden_size: int = 20,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    data: str = "random",
    mask: str = "half",
    seed: int = 0,
) -> Case:
    """A seeded case; `data` says how the logits look, `mask` which rows have no target."""
    random = torch.Generator().manual_seed(seed)
    labels_N = torch.randint(num_classes, (num_rows,), generator=random)
    hidden_NH = torch.randn(num_rows, hidden_size, dtype=torch.float64, generator=random)
    weight_VH = torch.randn(num_classes, hidden_size, dtype=torch.float64, generator=random)
    bias_V = torch.randn(num_classes, dtype=torch.float64, generator=random)
    if data == "random":
        weight_VH *= 2 / math.sqrt(hidden_size)
    elif data == "confident":  # p of the target goes to 1
        target_NH = weight_VH[labels_N]
        margin_N1 = torch.linspace(6, 20, num_rows, dtype=torch.float64)[:, None]
        hidden_NH = 0.05 * hidden_NH + target_NH * margin_N1 / (target_NH**2).sum(1, keepdim=True)
    elif data.startswith("huge"):  # 0 or +-1e4; exact in every dtype, or rounding would be all
        hidden_NH = 1024.0 * F.one_hot(torch.arange(num_rows) % hidden_size, hidden_size).double()
        weight_VH = 9.0 * torch.randint(-1, 2, weight_VH.shape, generator=random).double()
        bias_V = torch.zeros_like(bias_V)
        if data == "huge and right":  # small losses, that an error in proportion to 1e4 would drown
            labels_N = F.linear(hidden_NH, weight_VH).argmax(dim=1)
    elif data == "minus_infinity":  # in every third class, which is nobody's target
        weight_VH *= 2 / math.sqrt(hidden_size)
        bias_V[2::3] = -torch.inf
        labels_N -= (labels_N % 3 == 2).long()
    elif data == "dominant":
        bias_V[0] = 40.0
    labels_N[masked_rows(num_rows, mask)] = -100
    tensors = {"hidden_NH": hidden_NH, "weight_VH": weight_VH, "bias_V": bias_V}
    if operator == "masked_cross_entropy":
        tensors = {"logits_NV": F.linear(hidden_NH, weight_VH, bias_V)}
    elif operator == "token_classification_head":
        tensors = {"hidden_NH": hidden_NH, "weight_CH": weight_VH, "bias_C": bias_V}
    moved = {name: tensor.to(device, dtype) for name, tensor in tensors.items()}
    return Case(operator, moved, labels_N.to(device))


def needs_native(device: torch.device) -> None:
    """Skips what the reference, which autograd differentiates, does not promise."""
    if not all(native.is_built(operator, device) for operator in OPERATORS):
        pytest.skip(f"csrc is not built for {device}")


def masked_rows(num_rows: int, mask: str) -> torch.Tensor:
    """bool [N]. At least one row keeps its target unless all are masked."""
    row = torch.arange(num_rows)
    return {
        "none": row < 0,
        "one row": row == num_rows // 2,
        "half": row % 2 == 1,
        "99 %": row != num_rows // 3,
        "all": row >= 0,
    }[mask]


def stock(
    *,
    labels_N: torch.Tensor,
    logits_NV: torch.Tensor | None = None,
    row_weight_N: torch.Tensor | None = None,
    ignore_index: int = -100,
    label_smoothing: float = 0.0,
    z_loss: float = 0.0,
    softcap: float = 0.0,
    scale: float = 1.0,
    **linear: torch.Tensor,
) -> CrossEntropy:
    """torch's own functions, as models call them: a product in its dtype, the loss in fp32."""
    logits = F.linear(*linear.values()) if logits_NV is None else logits_NV
    if logits.dtype != torch.float64:
        logits = logits.float()
    if softcap > 0:
        logits = softcap * torch.tanh(logits / softcap)
    loss_N = F.cross_entropy(
        logits,
        labels_N.long(),
        ignore_index=ignore_index,
        label_smoothing=label_smoothing,
        reduction="none",
    )
    lse_N = logits.logsumexp(-1) * (labels_N != ignore_index)
    loss_N = loss_N + z_loss * lse_N**2
    if row_weight_N is not None:
        loss_N = loss_N * row_weight_N
    return CrossEntropy(loss_N.sum() * scale, loss_N.detach(), lse_N.detach())


def answer(
    function: Callable[..., Any], case: Case, upstream: torch.Tensor | None = None, **options: Any
) -> Answer:
    """loss_N, lse_N, the gradients, and the loss where there is one: always scale times the sum."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in case.tensors.items()}
    output = function(**leaves, labels_N=case.labels_N, **options)
    loss = output.loss_N if output.loss is None else output.loss
    upstream = None if upstream is None else upstream.to(loss.dtype)
    if upstream is None:
        upstream = torch.ones_like(loss)
    gradients = torch.autograd.grad(loss, list(leaves.values()), upstream)
    found = {"loss_N": output.loss_N.detach(), "lse_N": output.lse_N}
    if output.loss is not None:
        found["loss"] = output.loss.detach()
        total = output.loss_N.double().sum() * options.get("scale", 1.0)
        torch.testing.assert_close(found["loss"], total.to(loss.dtype), equal_nan=True)
    return found | {f"grad_{name}": g for name, g in zip(leaves, gradients, strict=True)}


def distance(left: torch.Tensor, right: torch.Tensor) -> float:
    """The largest difference of two elements; equal infinities differ by 0."""
    assert left.shape == right.shape
    left, right = left.detach().double(), right.detach().double()
    return float(torch.where(left == right, 0.0, (left - right).abs()).max()) if left.numel() else 0


def assert_as_exact_as_torch(
    ours: Answer, torchs: Answer, exact: Answer, *, times: float = TIMES_TORCH, signal: float = 5.0
) -> None:
    """No answer of ours is further from fp64 than a few times torch's.

    Not the loss: answer() holds it to be the rows' sum, whose errors cancel by chance in torch's.
    `signal`: how far above the tolerance a gradient must lie, so that a gradient of zeros fails; 0
    where the gradient is zero indeed.
    """
    assert ours.keys() == exact.keys()
    for name, truth in exact.items():
        if name == "loss":
            continue
        size = distance(truth, torch.zeros_like(truth))
        rounding = torch.finfo(ours[name].dtype).eps
        rounding += ULPS * torch.finfo(ours["lse_N"].dtype).eps
        tolerance = max(times * distance(torchs[name], truth), rounding * size)
        error = distance(ours[name], truth)
        assert error <= tolerance, f"{name}: error {error:.3g}, allowed {tolerance:.3g}"
        if name.startswith("grad_"):
            assert size >= signal * tolerance, f"{name}: a gradient of zeros would pass"
