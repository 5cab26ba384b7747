"""masked_cross_entropy's CUDA kernels, with a CPU in the GPU's place (emulation/cuda_runtime.h).

This checks logic: indices, masks, alignment, formulas, and barriers whose lack shows in one of two
orders of the threads. It checks no races beyond that, no speed, and not nvcc's code: a GPU does.
"""

from __future__ import annotations

from ctypes import byref, c_bool

import pytest
import torch
from cuda.emulated import (
    ALL_OPTIONS,
    DTYPES,
    IGNORED,
    MASKS,
    NO_OPTIONS,
    ROUNDING,
    CrossEntropyRows,
    CrossEntropyTile,
    Emulator,
    acc,
    assert_near,
    exact,
    guarded,
    masked,
    options_of,
)

from bigft.ops import reference


def cross_entropy(
    emulator: Emulator,
    logits_NV: torch.Tensor,
    labels_N: torch.Tensor,
    options: dict[str, float] = NO_OPTIONS,
    *,
    row_weight_N: torch.Tensor | None = None,
    scale: float = 1.0,
    ignored: int = IGNORED,
    in_place: bool = False,
    gradient_NV: torch.Tensor | None = None,
    spare: int = 0,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """loss_N, lse_N, gradient_NV, bad_label of one launch, all in guarded memory."""
    logits = guarded(logits_NV, spare)
    gradient = guarded(torch.full(logits.shape, 7.0).to(logits.dtype))
    gradient = logits if in_place else gradient if gradient_NV is None else gradient_NV
    labels = guarded(labels_N)
    weight = None if row_weight_N is None else guarded(row_weight_N)
    loss, lse = (guarded(torch.full(labels.shape, 7.0, dtype=acc(logits.dtype))) for _ in "12")
    bad = guarded(torch.zeros(2, dtype=torch.int64))
    rows = CrossEntropyRows(
        DTYPES.index(logits.dtype), *logits.shape, logits.data_ptr(), logits.stride(0),
        gradient.data_ptr(), gradient.stride(0), labels.data_ptr(),
        None if weight is None else weight.data_ptr(), options_of(options, ignored), scale,
        loss.data_ptr(), lse.data_ptr(), bad.data_ptr(),
    )  # fmt: skip
    emulator.call("loss", byref(rows))
    return loss, lse, gradient, bad


def check_cross_entropy(
    emulator: Emulator,
    logits_NV: torch.Tensor,
    labels_N: torch.Tensor,
    options: dict[str, float] = NO_OPTIONS,
    *,
    row_weight_N: torch.Tensor | None = None,
    scale: float = 1.0,
    ignored: int = IGNORED,
    in_place: bool = False,
    gradient_NV: torch.Tensor | None = None,
    spare: int = 0,
) -> None:
    """Loss, lse and gradient against fp64."""
    loss, lse, gradient, bad = cross_entropy(
        emulator, logits_NV, labels_N, options, row_weight_N=row_weight_N, scale=scale,
        ignored=ignored, in_place=in_place, gradient_NV=gradient_NV, spare=spare,
    )  # fmt: skip
    true_logits = exact(logits_NV)
    true = reference.masked_cross_entropy(
        true_logits, labels_N, row_weight_N=row_weight_N, ignore_index=ignored, scale=scale,
        **options,
    )  # fmt: skip
    assert true.loss is not None
    true.loss.backward()
    assert true_logits.grad is not None
    fine = ROUNDING[acc(logits_NV.dtype)]
    assert_near(loss, true.loss_N, fine)
    assert_near(lse, true.lse_N, fine)
    assert_near(gradient, true_logits.grad, ROUNDING[logits_NV.dtype], 2 * scale)
    assert bad.tolist() == [0, 0]


def random_rows(n: int, v: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(n * 10007 + v)
    logits_NV = (3 * torch.randn(n, v, generator=generator, dtype=torch.float64)).to(dtype)
    return logits_NV, torch.randint(v, (n,), generator=generator)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("v", [1, 2, 7, 129, 1003])
def test_loss_and_gradient_are_those_of_fp64(
    emulator: Emulator, v: int, dtype: torch.dtype
) -> None:
    for n in (1, 5):
        check_cross_entropy(emulator, *random_rows(n, v, dtype))
        check_cross_entropy(emulator, *random_rows(n, v, dtype), ALL_OPTIONS, scale=0.25)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("n", [0, 1, 127, 129])
def test_masked_rows_are_never_read(emulator: Emulator, n: int, mask: str) -> None:
    logits_NV, labels_N = random_rows(n, 37, torch.bfloat16)
    labels_N = masked(labels_N, mask)
    logits_NV[labels_N == IGNORED] = float("nan")
    row_weight_N = torch.linspace(0.5, 2, n)
    check_cross_entropy(
        emulator, logits_NV, labels_N, ALL_OPTIONS, row_weight_N=row_weight_N, scale=0.125
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("spare", [0, 1, 3, 8])
def test_rows_may_begin_and_end_anywhere(
    emulator: Emulator, spare: int, dtype: torch.dtype
) -> None:
    """Views of wider storage full of NaN, at every distance from a 16-byte boundary."""
    logits_NV, labels_N = random_rows(9, 75, dtype)
    labels_N = masked(labels_N, "half")
    wide = torch.empty_strided((9, 75), (83, 1), dtype=dtype).copy_(logits_NV)
    check_cross_entropy(emulator, wide, labels_N, spare=spare)
    check_cross_entropy(emulator, wide, labels_N, ALL_OPTIONS, in_place=True, spare=spare)


def test_a_gradient_elsewhere_leaves_the_gaps_between_its_rows(emulator: Emulator) -> None:
    logits_NV, labels_N = random_rows(4, 21, torch.float32)
    room = guarded(torch.full((4, 30), 7.0))
    check_cross_entropy(emulator, logits_NV, labels_N, gradient_NV=room[:, 2:23])
    assert bool((room[:, :2] == 7).all())
    assert bool((room[:, 23:] == 7).all())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_extreme_logits(emulator: Emulator, dtype: torch.dtype) -> None:
    logits_NV, labels_N = random_rows(8, 203, dtype)
    logits_NV[0, labels_N[0]] = 1e4  # certain, and right
    logits_NV[1, (labels_N[1] + 1) % 203] = 1e4  # certain, and wrong
    logits_NV[2] -= 1e4
    logits_NV[3, ::2] = -torch.inf
    logits_NV[3, labels_N[3]] = 1
    logits_NV[4, labels_N[4]] = -torch.inf
    logits_NV[5] = -torch.inf
    logits_NV[6, :100] = -torch.inf
    logits_NV[6, labels_N[6]] = 0
    logits_NV[7, labels_N[7]] = 12  # p near 1
    check_cross_entropy(emulator, logits_NV, labels_N)
    check_cross_entropy(emulator, logits_NV[:5], labels_N[:5], ALL_OPTIONS)


def test_the_gradient_of_a_nearly_certain_target_keeps_its_digits(emulator: Emulator) -> None:
    logits_NV = torch.zeros(1, 501, dtype=torch.bfloat16)
    logits_NV[0, 77] = 15
    gradient = cross_entropy(emulator, logits_NV, torch.tensor([77]))[2][0, 77]
    true = torch.softmax(logits_NV.double(), 1)[0, 77] - 1
    assert abs(float(gradient) / float(true) - 1) < 2**-7


def test_an_ignored_index_among_the_classes_masks_its_rows(emulator: Emulator) -> None:
    logits_NV, labels_N = random_rows(6, 11, torch.float32)
    labels_N[2:4] = 3
    logits_NV[2:4] = torch.nan
    check_cross_entropy(emulator, logits_NV, labels_N, ignored=3)


@pytest.mark.parametrize("label", [-1, 64, 2**40, -(2**62)])
def test_a_label_out_of_range_is_reported_and_reads_nothing(emulator: Emulator, label: int) -> None:
    logits_NV, labels_N = random_rows(3, 64, torch.float32)
    labels_N[1] = label
    loss, _, gradient, bad = cross_entropy(emulator, logits_NV, labels_N)
    assert bad.tolist() == [2, label]
    assert loss.isnan().tolist() == [False, True, False]
    assert not bool(gradient[1].any())


@pytest.mark.parametrize(
    ("ptx_version", "shared_limit"),
    [(90, 227 * 1024), (90, 20_000), (80, 163 * 1024), (89, 4096)],
    ids=["clusters", "clusters and L2", "one block", "one block and L2"],
)
@pytest.mark.parametrize(
    ("v", "dtype"),
    [(20_011, torch.float32), (70_001, torch.float64), (66_000, torch.bfloat16)],
    ids=str,
)
def test_large_rows(
    emulator: Emulator, v: int, dtype: torch.dtype, ptx_version: int, shared_limit: int
) -> None:
    emulator.set_device(ptx_version, shared_limit)
    logits_NV, labels_N = random_rows(2, v, dtype)
    labels_N[0] = v - 1
    check_cross_entropy(emulator, logits_NV, labels_N)
    check_cross_entropy(emulator, logits_NV, labels_N, ALL_OPTIONS, in_place=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_runs_and_orders_of_the_threads_give_the_same_bits(
    emulator: Emulator, dtype: torch.dtype
) -> None:
    logits_NV, labels_N = random_rows(3, 40_003, dtype)
    first = cross_entropy(emulator, logits_NV, labels_N, ALL_OPTIONS, in_place=True)
    again = cross_entropy(emulator, logits_NV, labels_N, ALL_OPTIONS, in_place=True)
    emulator.set_device(backwards=True)
    other = cross_entropy(emulator, logits_NV, labels_N, ALL_OPTIONS, in_place=True)
    for a, b, c in zip(first, again, other, strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("options", [NO_OPTIONS, ALL_OPTIONS], ids=["plain", "all options"])
def test_tiles_add_up_to_the_row(
    emulator: Emulator, options: dict[str, float], dtype: torch.dtype
) -> None:
    """V = 101 in tiles of 40, 40 and 21 classes: statistics, then gradients in place."""
    logits_NV, labels_N = random_rows(5, 101, dtype)
    labels_N = masked(labels_N, "half")
    logits_NV[1] = torch.nan
    true_logits = exact(logits_NV)
    true = reference.masked_cross_entropy(true_logits, labels_N, reduction="none", **options)
    upstream_N = torch.linspace(0.5, 1.5, 5, dtype=acc(dtype))
    true.loss_N.backward(upstream_N.double())
    assert true_logits.grad is not None
    lse_N = guarded(true.lse_N.to(acc(dtype)))
    upstream_N, labels, bad = (
        guarded(x) for x in (upstream_N, labels_N, torch.zeros(2, dtype=torch.int64))
    )
    capped_NV = logits_NV.double()
    if options["softcap"] > 0:
        capped_NV = options["softcap"] * torch.tanh(capped_NV / options["softcap"])
    for first in (0, 40, 80):
        tile_NV = guarded(logits_NV[:, first : first + 40], spare=first % 3)
        kept = [guarded(torch.full((5,), 7.0, dtype=acc(dtype))) for _ in range(3)]
        tile = CrossEntropyTile(
            DTYPES.index(dtype), *tile_NV.shape, 101, first, tile_NV.data_ptr(),
            tile_NV.stride(0), tile_NV.data_ptr(), tile_NV.stride(0), labels.data_ptr(),
            options_of(options), *(x.data_ptr() for x in kept), lse_N.data_ptr(),
            upstream_N.data_ptr(), bad.data_ptr(),
        )  # fmt: skip
        emulator.call("statistics_tile", byref(tile))
        part = capped_NV[:, first : first + 40]
        is_here = (labels_N >= first) & (labels_N < first + 40)
        target = part.gather(1, (labels_N - first).clamp(0, part.shape[1] - 1)[:, None])[:, 0]
        true_kept = (part.logsumexp(1), part.sum(1), target.where(is_here, torch.tensor(0.0)))
        for ours, theirs in zip(kept, true_kept, strict=True):
            expected = theirs.where(labels_N != IGNORED, torch.tensor(0.0))
            assert_near(ours, expected, ROUNDING[acc(dtype)], 40)
        emulator.call("gradient_tile", byref(tile))
        assert_near(tile_NV, true_logits.grad[:, first : first + 40], ROUNDING[dtype], 4)
    assert bad.tolist() == [0, 0]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("factor_dtype", [torch.float32, torch.float64], ids=str)
def test_scale_multiplies_and_leaves_alone_at_one(
    emulator: Emulator, factor_dtype: torch.dtype, dtype: torch.dtype
) -> None:
    for size in (0, 1, 5, 5003):
        x = torch.linspace(-2, 2, size, dtype=torch.float64).to(dtype)
        for value in (1.0, 0.3):
            factor = guarded(torch.tensor(value, dtype=factor_dtype))
            out = guarded(x, spare=1)
            is_double = c_bool(factor_dtype == torch.float64)
            emulator.call(
                "scale", out.data_ptr(), DTYPES.index(dtype), size, factor.data_ptr(), is_double
            )
            assert torch.equal(out, (x.to(acc(dtype)) * factor.to(acc(dtype))).to(dtype))
