"""What a bench file says of its operator, and what it needs to say it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any, NamedTuple

import torch

IGNORED = -100


class Absent(Exception):
    """A provider that cannot run here; str() says why."""


class Wrong(Exception):
    """A provider whose numbers are too far from fp64; str() says which and how far."""


class Answer(NamedTuple):
    loss: torch.Tensor  # the SUM over the rows with a target
    gradients: dict[str, torch.Tensor]  # of the inputs that require one


class Step(NamedTuple):
    """run() gives the loss; prepare() comes before each run and is neither timed nor counted."""

    run: Callable[[], torch.Tensor]
    prepare: Callable[[], None] = lambda: None


class Work(NamedTuple):
    """The fewest bytes that must move and operations that must be done."""

    num_bytes: float
    num_flops: float


@dataclass(frozen=True)
class Goal:
    """`provider`'s `column` is at most `bound`; with `over`: `bound` times smaller than the
    smallest of those providers'."""

    provider: str
    column: str
    bound: float
    over: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """One shape. masked: share of the rows without a target.  frozen: the weight needs no
    gradient.  data: "peaked" (Zipf's law, most targets likely) or "random"."""

    sizes: Mapping[str, int]
    dtype: torch.dtype
    data: str = "peaked"
    masked: float = 0.0
    frozen: bool = False
    goals: tuple[Goal, ...] = ()
    quick: bool = False

    @property
    def name(self) -> str:
        sizes = " ".join(f"{letter}={size}" for letter, size in self.sizes.items())
        dtype = {torch.float32: "fp32", torch.bfloat16: "bf16"}[self.dtype]
        frozen = " frozen" if self.frozen else ""
        return f"{sizes} {dtype} {self.masked:.0%} masked {self.data}{frozen}"

    @property
    def num_targets(self) -> int:
        return self.sizes["N"] - int(self.sizes["N"] * self.masked)


@dataclass(frozen=True, eq=False)
class Inputs:
    case: Case
    tensors: Mapping[str, torch.Tensor]
    labels_N: torch.Tensor

    @property
    def leaves(self) -> dict[str, torch.Tensor]:
        return {name: tensor for name, tensor in self.tensors.items() if tensor.requires_grad}

    @cached_property
    def target_rows_M(self) -> torch.Tensor:
        """As a batch brings it along: not part of what is timed."""
        return (self.labels_N != IGNORED).nonzero().squeeze(1)


@dataclass(frozen=True)
class Subject:
    """What an operator's bench file says.

    providers: each builds a Step, or raises Absent.  expected: the answer in fp64; gets the
    provider's, from which it may read off what was dropped.  combine: floors of bytes and of
    operations are added (`sum`) where the phases follow each other, else the larger counts (`max`).
    """

    name: str
    file: str
    tensors: tuple[str, ...]
    baseline: str
    providers: Mapping[str, Callable[[Inputs], Step]]
    cases: Callable[[str, bool], list[Case]]
    inputs: Callable[[Case, torch.device], Inputs]
    expected: Callable[[Inputs, Answer], Answer]
    work: Callable[[Case], Work]
    combine: Callable[[Iterable[float]], float] = sum


def peer(module: str) -> Any:
    """The module of another project."""
    try:
        return import_module(module)
    except ImportError as error:
        raise Absent(f"not installed: {error}") from error


def cuda_only(inputs: Inputs) -> None:
    if inputs.labels_N.device.type != "cuda":
        raise Absent("runs on CUDA only")


def native(inputs: Inputs, operator: str) -> None:
    """Refuses to measure the plain-torch reference under our name."""
    device = inputs.labels_N.device
    if not peer("bigft.ops.native").is_built(operator, device):
        raise Absent(
            f"{operator} is not built for {device.type}: python setup.py build_ext --inplace"
        )


def compiling(inputs: Inputs) -> None:
    """For tests of the rest: a compilation takes longer than all of it."""
    if inputs.case.quick:
        raise Absent("--quick compiles nothing")


def compiled(inputs: Inputs, function: Callable[..., Any]) -> Callable[..., Any]:
    compiling(inputs)
    torch.compiler.reset()  # each case is a program of its own, without its size made symbolic
    return torch.compile(function)


def labels(case: Case, generator: torch.Generator, num_classes: int) -> torch.Tensor:
    """Classes by Zipf's law (uniform for random data), int64 [N]; masked rows are spread evenly."""
    num_rows, device = case.sizes["N"], generator.device
    weight_V = torch.arange(1, num_classes + 1, device=device).float().reciprocal()
    if case.data == "random":
        weight_V.fill_(1)
    labels_N = torch.multinomial(weight_V, num_rows, replacement=True, generator=generator)
    masked_rows = torch.randperm(num_rows, device=device, generator=generator)
    labels_N[masked_rows[case.num_targets :]] = IGNORED
    return labels_N
