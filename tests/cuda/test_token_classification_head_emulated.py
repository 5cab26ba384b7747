"""token_classification_head's CUDA kernel with a CPU in the GPU's place.

What that shows and what not: test_masked_cross_entropy_emulated.py.
"""

from __future__ import annotations

from ctypes import byref

import pytest
import torch
from cuda.emulated import (
    ALL_OPTIONS,
    DTYPES,
    MASKS,
    NO_OPTIONS,
    ROUNDING,
    Emulator,
    TokenHeadRows,
    acc,
    assert_near,
    exact,
    guarded,
    masked,
    options_of,
)

from bigft.ops import reference


class Head:
    """One launch over random numbers: its inputs, and its outputs in guarded memory."""

    def __init__(
        self,
        emulator: Emulator,
        n: int,
        h: int,
        c: int,
        dtype: torch.dtype,
        options: dict[str, float] = NO_OPTIONS,
        *,
        mask: str = "half",
        dropout_p: float = 0.0,
        has_bias: bool = True,
        partials: int = 2,
        spare: int = 0,
        label: int | None = None,
        scale: float = 0.5,
    ) -> None:
        generator = torch.Generator().manual_seed(n * 10007 + h * 101 + c)
        self.options, self.dropout_p, self.scale = options, dropout_p, scale

        def random(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

        self.labels_N = masked(torch.randint(c, (n,), generator=generator), mask)
        if label is not None:
            self.labels_N[1] = label
        self.hidden_NH = torch.empty_strided((n, h), (h + spare, 1), dtype=dtype)
        self.hidden_NH.copy_(random(n, h))
        self.hidden_NH[(self.labels_N < 0) | (self.labels_N >= c)] = torch.nan
        self.weight_CH, self.bias_C = random(c, h) / h**0.5, random(c) if has_bias else None
        self.row_weight_N = torch.linspace(0.5, 2, n)
        self.seed = torch.tensor([2**40 + 12345, -7])
        inputs = [
            guarded(x, spare) if x is not None else None
            for x in (self.hidden_NH, self.weight_CH, self.bias_C)
        ]
        inputs += [guarded(x) for x in (self.labels_N, self.row_weight_N, self.seed)]
        self.loss_N, self.lse_N, self.partial_weight, self.partial_bias = (
            guarded(torch.full(shape, 7.0, dtype=acc(dtype)))
            for shape in ((n,), (n,), (partials, c, h), (partials, c))
        )
        self.predictions_N = guarded(torch.full((n,), 7))
        self.grad_hidden_NH = guarded(torch.full((n, h), 7.0).to(dtype))
        self.bad = guarded(torch.zeros(2, dtype=torch.int64))
        hidden, weight, bias, labels, row_weight, seed = (
            x.data_ptr() if x is not None else None for x in inputs
        )
        rows = TokenHeadRows(
            DTYPES.index(dtype), n, h, c, hidden, self.hidden_NH.stride(0), weight, bias, labels,
            row_weight, seed, dropout_p, options_of(options), scale, self.loss_N.data_ptr(),
            self.lse_N.data_ptr(), self.predictions_N.data_ptr(), self.grad_hidden_NH.data_ptr(),
            self.partial_weight.data_ptr(), self.partial_bias.data_ptr(), partials,
            self.bad.data_ptr(),
        )  # fmt: skip
        emulator.call("forward", byref(rows))

    def outputs(self) -> list[torch.Tensor]:
        return [
            self.loss_N, self.lse_N, self.partial_weight, self.partial_bias, self.predictions_N,
            self.grad_hidden_NH, self.bad,
        ]  # fmt: skip

    def check(self) -> None:
        dtype = self.hidden_NH.dtype
        hidden, weight = exact(self.hidden_NH), exact(self.weight_CH)
        bias = None if self.bias_C is None else exact(self.bias_C)
        true = reference.token_classification_head(
            hidden, weight, bias, self.labels_N, dropout_p=self.dropout_p, seed=self.seed,
            row_weight_N=self.row_weight_N, scale=self.scale, **self.options,
        )  # fmt: skip
        assert true.loss is not None
        true.loss.backward()
        assert hidden.grad is not None
        assert weight.grad is not None
        fine = ROUNDING[acc(dtype)]
        assert_near(self.loss_N, true.loss_N, fine, 4)
        assert_near(self.lse_N, true.lse_N, fine, 4)
        assert torch.equal(self.predictions_N, true.predictions_N)
        assert_near(self.grad_hidden_NH, hidden.grad, ROUNDING[dtype])
        assert_near(self.partial_weight.sum(0), weight.grad, fine, 40)
        if bias is not None:
            assert bias.grad is not None
            assert_near(self.partial_bias.sum(0), bias.grad, fine, 40)
        assert self.bad.tolist() == [0, 0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("h", "c"), [(1, 2), (7, 3), (64, 9), (129, 17), (72, 128)])
def test_head_is_that_of_fp64(emulator: Emulator, h: int, c: int, dtype: torch.dtype) -> None:
    Head(emulator, 13, h, c, dtype).check()
    Head(emulator, 37, h, c, dtype, ALL_OPTIONS, mask="none", dropout_p=0.3, spare=3).check()


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("n", [0, 1, 127, 129])
def test_head_never_reads_masked_rows(emulator: Emulator, n: int, mask: str) -> None:
    Head(emulator, n, 40, 5, torch.bfloat16, mask=mask, dropout_p=0.5).check()


@pytest.mark.parametrize("partials", [1, 3, 40, 200])
def test_every_partial_sum_is_written(emulator: Emulator, partials: int) -> None:
    """With fewer, as many and more of them than there are rows."""
    Head(emulator, 40, 24, 4, torch.float32, partials=partials, has_bias=partials > 1).check()


@pytest.mark.parametrize("shared_limit", [3000, 9000, 99 * 1024])
def test_head_with_few_rows_in_shared_memory(emulator: Emulator, shared_limit: int) -> None:
    emulator.set_device(89, shared_limit)
    Head(emulator, 45, 300, 6, torch.float32, mask="none", dropout_p=0.1, partials=1).check()


def test_head_of_8192(emulator: Emulator) -> None:
    Head(emulator, 3, 8192, 2, torch.float64, mask="none", dropout_p=0.1).check()


def test_a_row_beyond_shared_memory_is_refused(emulator: Emulator) -> None:
    emulator.set_device(shared_limit=4096)
    with pytest.raises(RuntimeError, match="a row of hidden needs 8720 bytes of shared memory"):
        Head(emulator, 3, 2048, 2, torch.float32)


@pytest.mark.parametrize("label", [-1, 5, 2**40])
def test_head_reports_a_label_out_of_range(emulator: Emulator, label: int) -> None:
    head = Head(emulator, 4, 16, 5, torch.float32, mask="none", label=label)
    assert head.bad.tolist() == [2, label]
    assert head.loss_N.isnan().tolist() == [False, True, False, False]
    assert not bool(head.grad_hidden_NH[1].any())
    assert int(head.predictions_N[1]) == -1


def test_head_gives_the_same_bits_in_every_order_of_the_threads(emulator: Emulator) -> None:
    def run() -> list[torch.Tensor]:
        return Head(emulator, 70, 136, 9, torch.bfloat16, ALL_OPTIONS, dropout_p=0.1).outputs()

    first, again = run(), run()
    emulator.set_device(backwards=True)
    for a, b, c in zip(first, again, run(), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
