"""The definition against torch's own functions in fp64, and Philox's known answers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from ops.cases import DATA, MASKS, OPERATORS, Case, answer, make, masked_rows, stock

from bigft.ops import reference

OPTIONS: list[dict[str, float]] = [
    {},
    {"label_smoothing": 0.2},
    {"z_loss": 0.05},
    {"softcap": 3.0},
    {"label_smoothing": 0.2, "z_loss": 0.05, "softcap": 3.0, "scale": 0.5},
]

MASK_32 = 2**32 - 1
# Counter, key, output of Philox4x32-10: the known answers that its authors publish with Random123.
KNOWN_ANSWERS = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((MASK_32,) * 4, (MASK_32,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def define(case: Case, **options: Any) -> dict[str, torch.Tensor]:
    return answer(getattr(reference, case.operator), case, **options)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("operator", OPERATORS)
def test_equals_torchs_functions(operator: str, options: dict[str, float]) -> None:
    case = make(operator, dtype=torch.float64)
    row_weight_N = torch.linspace(0, 2, len(case.rows), dtype=torch.float64)
    for more in ({}, {"row_weight_N": row_weight_N}, {"ignore_index": 4}):
        moved = case
        if "ignore_index" in more:
            moved = Case(operator, case.tensors, case.labels_N.clamp(min=0))
        expected = answer(stock, moved, **options, **more)
        for name, value in define(moved, **options, **more).items():
            assert expected[name].any()
            torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-13, msg=name)


@pytest.mark.parametrize("data", DATA)
def test_equals_torchs_functions_on_every_data(data: str) -> None:
    case = make("masked_cross_entropy", dtype=torch.float64, data=data)
    expected = answer(stock, case)
    for name, value in define(case).items():
        torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-12, msg=name)


def test_the_gradient_is_that_of_the_written_formula() -> None:
    """p_v (1 + 2 λ lse) - (1 - ε) δ_vy - ε / V, times 1 - (x̃ / softcap)²: docs/numerics.md."""
    epsilon, z_loss, softcap = 0.2, 0.05, 3.0
    case = make("masked_cross_entropy", dtype=torch.float64, mask="none")
    x = softcap * torch.tanh(case.rows / softcap)
    lse_N1 = x.logsumexp(dim=1, keepdim=True)
    formula = (x - lse_N1).exp() * (1 + 2 * z_loss * lse_N1) - epsilon / x.shape[1]
    formula -= (1 - epsilon) * F.one_hot(case.labels_N, x.shape[1]).double()
    formula *= 1 - (x / softcap) ** 2
    found = define(case, label_smoothing=epsilon, z_loss=z_loss, softcap=softcap)
    torch.testing.assert_close(found["grad_logits_NV"], formula, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("operator", OPERATORS)
def test_masked_rows_are_left_out(operator: str, mask: str) -> None:
    case = make(operator, mask=mask)
    masked_N = masked_rows(len(case.rows), mask)
    poisoned = define(case.with_rows(case.rows.masked_fill(masked_N[:, None], torch.nan)))
    for name, value in define(case).items():
        assert torch.equal(value, poisoned[name]), name
    assert not poisoned["loss_N"][masked_N].any()


def test_dropout_divides_by_the_share_that_is_kept() -> None:
    case = make("token_classification_head", dtype=torch.float64)
    seed = torch.tensor([3, 4])
    keep_NH = reference.dropout_mask(seed, *case.rows.shape, 0.3)
    expected = answer(stock, case.with_rows(case.rows * keep_NH / 0.7))
    found = define(case, dropout_p=0.3, seed=seed)
    torch.testing.assert_close(found["loss"], expected["loss"])
    torch.testing.assert_close(found["grad_hidden_NH"], expected["grad_hidden_NH"] * keep_NH / 0.7)


def philox(counter: tuple[int, ...], key: tuple[int, ...]) -> tuple[int, ...]:
    """Philox4x32-10 in Python's integers, from the paper."""
    (a, b, c, d), (low, high) = counter, key
    for _ in range(10):
        first, second = a * 0xD2511F53, c * 0xCD9E8D57
        a, b, c, d = (
            (second >> 32) ^ b ^ low,
            second & MASK_32,
            (first >> 32) ^ d ^ high,
            first & MASK_32,
        )
        low, high = (low + 0x9E3779B9) & MASK_32, (high + 0xBB67AE85) & MASK_32
    return a, b, c, d


@pytest.mark.parametrize(("counter", "key", "output"), KNOWN_ANSWERS)
def test_philox_gives_its_known_answers(
    counter: tuple[int, ...], key: tuple[int, ...], output: tuple[int, ...]
) -> None:
    assert philox(counter, key) == output


@pytest.mark.parametrize("seed", [(0, 0), (-1, -1), (0x299F31D0_A4093822, 0x03707344_13198A2E)])
@pytest.mark.parametrize("hidden_size", [1, 4, 7])
def test_dropout_compares_philoxs_words_with_p(seed: tuple[int, int], hidden_size: int) -> None:
    """Word by word: an element stays at a p of exactly its word, and falls out just above."""
    num_rows, groups = 3, -(-hidden_size // 4)
    key = (seed[0] & MASK_32, seed[0] >> 32 & MASK_32)
    for row in range(num_rows):
        for unit in range(hidden_size):
            counter = (row * groups + unit // 4, 0, seed[1] & MASK_32, seed[1] >> 32 & MASK_32)
            word = philox(counter, key)[unit % 4]
            for p, stays in ((word / 2**32, True), ((word + 1) / 2**32, False)):
                keep_NH = reference.dropout_mask(torch.tensor(seed), num_rows, hidden_size, p)
                assert keep_NH[row, unit] == stays


def test_dropout_of_two_steps_is_unrelated() -> None:
    first, second = (
        reference.dropout_mask(torch.tensor([7, step]), 500, 40, 0.5) for step in (0, 1)
    )
    assert abs(first.float().mean() - 0.5) < 0.02
    assert abs((first == second).float().mean() - 0.5) < 0.02
