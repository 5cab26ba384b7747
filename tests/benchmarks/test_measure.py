"""What the benchmarks read off the machine."""

from __future__ import annotations

import math
from pathlib import Path

import measure
import pytest
import torch

BENCHMARKS = Path(measure.__file__).parent


def test_the_spread_is_median_and_quantiles() -> None:
    assert measure.spread([5.0, 1.0, 2.0, 4.0, 3.0, 6.0]) == (3.5, 2.0, 5.0, 6)


def test_providers_take_turns_after_a_round_that_is_thrown_away() -> None:
    order: list[str] = []

    def call(name: str) -> float:
        order.append(name)
        return float(len(order))

    calls = {name: lambda name=name: call(name) for name in "abc"}
    spreads = measure.interleaved(calls, seconds=0.0, bounds=(9, 9))
    rounds = ["".join(order[at : at + 3]) for at in range(0, 30, 3)]
    assert all(sorted(turns) == ["a", "b", "c"] for turns in rounds)
    assert {turns[0] for turns in rounds} == {"a", "b", "c"}, "always behind the same one"
    taken = [at for at, name in enumerate(order, 1) if name == "a"][1:]
    assert spreads["a"] == measure.spread(list(map(float, taken)))


def test_the_rounds_fill_the_time_they_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0.0, 0.5])  # the warm-up round takes half a second
    monkeypatch.setattr(measure.time, "perf_counter", lambda: next(ticks))
    assert measure.interleaved({"a": lambda: 0.1}, 10.0, (2, 100))["a"].runs == 20


def test_the_clock_tells_what_the_call_takes() -> None:
    sleep = measure.time.sleep
    clock, whole = measure.Clock(torch.device("cpu")), measure.time.perf_counter()
    seconds = clock.seconds(lambda: sleep(0.05))
    whole = measure.time.perf_counter() - whole
    assert 0.05 <= seconds < whole


@pytest.mark.parametrize(
    ("actual", "expected"),
    [([3.0, 4.0], 0.0), ([0.0, 0.0], 1.0), ([3.0, 4.5], 0.1), ([3.0, math.inf], math.inf)],
)
def test_the_error_is_relative_to_the_norm(actual: list[float], expected: float) -> None:
    truth = torch.tensor([3.0, 4.0], dtype=torch.float64)
    assert measure.relative_error(torch.tensor(actual), truth) == pytest.approx(expected)


def test_the_error_of_many_rows_is_that_of_one_piece() -> None:
    torch.manual_seed(0)
    actual, expected = torch.randn(2500, 3), torch.randn(2500, 3, dtype=torch.float64)
    whole = torch.linalg.vector_norm(actual.double() - expected) / expected.norm()
    assert measure.relative_error(actual, expected) == pytest.approx(float(whole))
    assert math.isnan(measure.relative_error(torch.tensor(math.nan), torch.ones(()).double()))


def test_memory_counts_scratch_that_is_gone_and_what_stays() -> None:
    """64 MiB of scratch beside 32 that stay; not what was there before, and larger."""
    code = f"""
import json, sys
sys.path.insert(0, {str(BENCHMARKS)!r})
import measure, torch
def call():
    scratch = torch.ones(16 << 20)
    return scratch[: 8 << 20].clone()
def prepare():
    torch.ones(64 << 20)
print(json.dumps(measure.resident_memory(prepare, call)))
"""
    memory = measure.memory_in_child(["-c", code])
    mib = 1 << 20
    assert 94 * mib < memory.peak < 100 * mib
    assert 31 * mib < memory.outputs < 34 * mib


def test_a_child_that_fails_is_told_with_its_words() -> None:
    code = "import sys; print('out of cheese', file=sys.stderr); sys.exit(3)"
    with pytest.raises(RuntimeError, match=r"exit code 3 of [^\0]*out of cheese"):
        measure.memory_in_child(["-c", code])
