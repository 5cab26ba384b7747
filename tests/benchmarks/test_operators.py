"""The benchmarks of the three operators: right floors, right inputs, faults refused."""

from __future__ import annotations

from dataclasses import replace
from types import ModuleType

import bench_linear_cross_entropy as linear
import bench_masked_cross_entropy as masked
import bench_token_classification_head as head
import bench_train_lm
import harness
import pytest
import torch
from subject import IGNORED, Inputs, Step, Subject

CPU = torch.device("cpu")
BENCHES = (masked, linear, head)
H200 = (4.3e12, 790e12)  # bytes and operations per second


def floor_ms(bench: ModuleType, number: int) -> float:
    case = bench.cases("cuda", False)[number]
    work = bench.work(case)
    floors = (work.num_bytes / H200[0], work.num_flops / H200[1])
    return bench.SUBJECT.combine(floors) * 1e3


@pytest.mark.parametrize(
    ("bench", "number", "expected"),
    [
        (masked, 0, 0.98),
        (masked, 2, 0.73),
        (linear, 0, 32.7 + 0.98),
        (linear, 1, 16.3 + 0.49),
        (linear, 3, 10.9 + 0.49),
        (head, 0, 0.0117),
        (head, 1, 0.0312),
        (head, 2, 0.261),
    ],
)
def test_the_floors_are_those_of_the_plan(bench: ModuleType, number: int, expected: float) -> None:
    assert floor_ms(bench, number) == pytest.approx(expected, rel=0.01)


@pytest.mark.parametrize("bench", BENCHES)
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_goals_name_providers_and_columns_that_exist(bench: ModuleType, device: str) -> None:
    for case in bench.cases(device, False):
        for goal in case.goals:
            assert {goal.provider, *goal.over} <= bench.SUBJECT.providers.keys()
            assert goal.column in harness.columns(bench.SUBJECT.tensors)
        assert case.goals


@pytest.mark.parametrize("bench", BENCHES)
def test_half_of_the_rows_are_masked_and_two_builds_are_equal(bench: ModuleType) -> None:
    case = bench.cases("cpu", True)[0]
    first, second = (bench.inputs(case, CPU) for _ in range(2))
    assert int((first.labels_N == IGNORED).sum()) == case.sizes["N"] // 2
    assert first.target_rows_M.numel() == case.num_targets
    for name, tensor in first.tensors.items():
        assert torch.equal(tensor, second.tensors[name])


def test_peaked_targets_are_unlikely_likely_and_nearly_certain() -> None:
    case = replace(masked.cases("cpu", False)[0], sizes={"N": 512, "V": 2000})
    inputs = masked.inputs(case, CPU)
    rows_M = inputs.target_rows_M
    probability_MV = inputs.tensors["logits"][rows_M].softmax(dim=-1)
    target_M = probability_MV.gather(1, inputs.labels_N[rows_M, None]).squeeze(1)
    assert (target_M < 0.1).float().mean() > 0.1
    assert (target_M > 0.99).float().mean() > 0.1


def only(subject: Subject, **providers: object) -> Subject:
    return replace(subject, providers=providers)


@pytest.mark.parametrize("bench", BENCHES)
def test_every_provider_that_can_run_here_is_right(bench: ModuleType) -> None:
    for case in bench.cases("cpu", True):
        for row in harness.measure_case(bench.SUBJECT, case, CPU, 0.0):
            why_not = row.get("not_measured", "")
            assert not why_not.startswith(("refused", "failed")), (row["provider"], why_not)
            assert why_not or row["median_ms"] > 0


@pytest.mark.parametrize(
    ("bench", "tensor"), [(bench, name) for bench in BENCHES for name in bench.SUBJECT.tensors]
)
def test_a_gradient_that_is_missing_is_refused(bench: ModuleType, tensor: str) -> None:
    def forgetful(inputs: Inputs) -> Step:
        tensors = {**inputs.tensors, tensor: inputs.tensors[tensor].detach()}
        step = bench.eager(Inputs(inputs.case, tensors, inputs.labels_N))
        return Step(lambda: step.run() + 0 * inputs.tensors[tensor].sum())

    case = bench.cases("cpu", True)[0]
    (row,) = harness.measure_case(only(bench.SUBJECT, eager=forgetful), case, CPU, 0.0)
    assert row["not_measured"].startswith("refused: ")


def test_a_head_that_drops_nothing_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(head.F, "dropout", lambda hidden_NH, p: hidden_NH)
    case = head.cases("cpu", True)[0]
    (row,) = harness.measure_case(only(head.SUBJECT, eager=head.eager), case, CPU, 0.0)
    assert "dropout keeps 1.0000 of the elements instead of 0.9" in row["not_measured"]


def test_masked_rows_that_count_are_refused() -> None:
    def careless(inputs: Inputs) -> Step:
        labels_N = inputs.labels_N.clamp(min=0)
        return masked.eager(Inputs(inputs.case, inputs.tensors, labels_N))

    case = masked.cases("cpu", True)[0]
    (row,) = harness.measure_case(only(masked.SUBJECT, eager=careless), case, CPU, 0.0)
    assert row["not_measured"].startswith("refused: error_loss")


def test_the_lm_trains_alike_with_every_head(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_train_lm, "memory_row", lambda *_: {"peak_mib": 1.0})
    rows = list(bench_train_lm.measured(CPU, True, 0.0))
    assert [row["provider"] for row in rows] == list(bench_train_lm.PROVIDERS)
    for row in rows:
        assert row["error_loss"] <= bench_train_lm.LARGEST_DIFFERENCE
        assert row["last_loss"] != row["first_loss"]


def test_an_lm_with_other_losses_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bench_train_lm, "memory_row", lambda *_: {"peak_mib": 1.0})
    with_head = bench_train_lm.with_head
    monkeypatch.setattr(bench_train_lm, "with_head", lambda *batch: 1.01 * with_head(*batch))
    assert bench_train_lm.main(["--device", "cpu", "--quick"]) == 1
    assert "refused: the losses of ours, fused head are off by 1.0e-02" in capsys.readouterr().out
