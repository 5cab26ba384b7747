"""The harness: wrong numbers are refused, absent peers named, one row per provider and shape."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import harness
import pytest
import torch
from subject import Absent, Answer, Case, Goal, Inputs, Step, Subject, Work

SQUARES = Case({"N": 4}, torch.float32, quick=True)


def squares(factor: float = 1.0, runs: list[str] | None = None) -> Callable[[Inputs], Step]:
    """sum(x * x), its gradient multiplied by a factor."""

    def build(inputs: Inputs) -> Step:
        def run() -> torch.Tensor:
            if runs is not None:
                runs.append("run")
            x_N = inputs.tensors["x"]
            x_N = x_N.detach() + factor * (x_N - x_N.detach())
            return (x_N * x_N).sum()

        return Step(run)

    return build


def absent(inputs: Inputs) -> Step:
    raise Absent("not installed: No module named 'peer'")


def broken(inputs: Inputs) -> Step:
    raise ZeroDivisionError("by nothing\nand more")


def expected(inputs: Inputs, answer: Answer) -> Answer:
    x_N = inputs.tensors["x"].detach().double()
    return Answer((x_N * x_N).sum(), {"x": 2 * x_N})


def subject(*cases: Case, **providers: Callable[[Inputs], Step]) -> Subject:
    return Subject(
        name="squares",
        file=__file__,
        tensors=("x",),
        baseline="eager",
        providers=providers,
        cases=lambda device, quick: list(cases or (SQUARES,)),
        inputs=lambda case, device: Inputs(
            case,
            {"x": torch.arange(1.0, 5.0, requires_grad=True)},
            torch.zeros(4, dtype=torch.int64),
        ),
        expected=expected,
        work=lambda case: Work(num_bytes=32, num_flops=8),
    )


def measured(what: Subject) -> dict[str, harness.Row]:
    rows = harness.measure_case(what, what.cases("cpu", True)[0], torch.device("cpu"), 0.0)
    return {row["provider"]: row for row in rows}


def test_wrong_numbers_are_refused_and_not_timed() -> None:
    runs: list[str] = []
    rows = measured(subject(eager=squares(), near=squares(1.001, runs), zero=squares(0.0)))
    assert rows["near"]["not_measured"] == "refused: error_grad_x 1.0e-03, over 1e-04"
    assert rows["zero"]["not_measured"] == "refused: error_grad_x 1.0e+00, over 1e-04"
    assert "median_ms" not in rows["near"]
    assert len(runs) == 1
    assert rows["eager"]["error_grad_x"] < 1e-6
    assert rows["eager"]["runs"] == 2


def test_nan_is_wrong() -> None:
    assert "nan" in measured(subject(eager=squares(float("nan"))))["eager"]["not_measured"]


def test_absent_and_broken_providers_are_named_with_the_reason() -> None:
    rows = measured(subject(eager=squares(), peer=absent, other=broken))
    assert rows["peer"]["not_measured"] == "not installed: No module named 'peer'"
    assert rows["other"]["not_measured"] == "failed: ZeroDivisionError: by nothing"


@pytest.mark.parametrize(
    ("provider", "build", "code"),
    [
        ("ours", squares(), 0),
        ("ours", absent, 0),
        ("ours lean", broken, 1),
        ("ours", squares(0.5), 1),
        ("peer", squares(0.5), 0),
    ],
)
def test_the_run_fails_where_our_own_numbers_are_wrong(
    provider: str, build: Callable[[Inputs], Step], code: int
) -> None:
    arguments = ["--device", "cpu", "--quick"]
    assert harness.main(subject(**{"eager": squares(), provider: build}), arguments) == code


def test_what_prepare_does_is_neither_timed_nor_forgotten() -> None:
    copies: list[torch.Tensor] = []

    def clobbering(inputs: Inputs) -> Step:
        def run() -> torch.Tensor:
            x_N = copies.pop()
            return (x_N * x_N).sum()

        return Step(run, lambda: copies.append(inputs.tensors["x"].clone()))

    assert measured(subject(eager=clobbering))["eager"]["runs"] == 2
    assert not copies


def test_every_row_has_every_column_and_a_second_run_adds_rows(tmp_path: Path) -> None:
    goal = Goal("ours", "median_ms", 1e-9, ("eager",))
    case = Case({"N": 4}, torch.float32, quick=True, goals=(goal,))
    what = subject(case, ours=squares(), eager=squares(), peer=absent)
    for _ in range(2):
        assert harness.main(what, ["--device", "cpu", "--quick", "--out", str(tmp_path)]) == 0
    (path,) = tmp_path.glob("squares_cpu_*.csv")
    with path.open(encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    assert reader.fieldnames == harness.columns(["x"])
    assert [row["provider"] for row in rows] == ["ours", "eager", "peer"] * 2
    ours, eager, peer = rows[:3]
    assert ours["case"] == "N=4 fp32 0% masked peaked"
    assert ours["goals"].endswith(" x below eager (goal 1e-09 x): reached")
    assert float(eager["times_as_fast_as_baseline"]) == 1
    for column in ("p20_ms", "p80_ms", "floor_ms", "ratio_to_floor", "gb_per_s", "tflop_per_s"):
        assert float(ours[column]) > 0
    assert ours["torch"].startswith(torch.__version__.partition("+")[0])
    for column in ("device", "threads", "bigft", "native", "date", "copy_gb_per_s"):
        assert peer[column], column
    assert peer["not_measured"]
    assert not peer["median_ms"]


def test_the_ratio_is_to_the_floor_of_the_same_run() -> None:
    row = measured(subject(eager=squares()))["eager"]
    copied = 32 / (row["copy_gb_per_s"] * 1e9)
    multiplied = 8 / (row["gemm_tflop_per_s"] * 1e12)
    assert row["floor_ms"] == pytest.approx(1e3 * (copied + multiplied))
    assert row["ratio_to_floor"] == pytest.approx(row["median_ms"] / row["floor_ms"])


@pytest.mark.parametrize(
    ("goal", "text"),
    [
        (Goal("ours", "median_ms", 10), "median_ms 10 (goal at most 10): reached"),
        (Goal("ours", "median_ms", 9), "median_ms 10 (goal at most 9): MISSED"),
        (Goal("ours", "median_ms", 2, ("a",)), "median_ms 3.00 x below a (goal 2 x): reached"),
        (
            Goal("ours", "median_ms", 2, ("a", "b")),
            "median_ms 1.50 x below a and b (goal 2 x): MISSED",
        ),
        (Goal("ours", "median_ms", 2, ("c",)), "median_ms: none of c measured (goal 2 x)"),
        (Goal("ours", "peak_mib", 5), "peak_mib: not measured (goal at most 5)"),
    ],
)
def test_a_goal_is_told_beside_what_was_measured(goal: Goal, text: str) -> None:
    rows = {
        "ours": {"median_ms": 10.0},
        "a": {"median_ms": 30.0},
        "b": {"median_ms": 15.0},
        "c": {"not_measured": "absent"},
    }
    assert harness.verdict(goal, rows) == text


def test_a_case_that_does_not_exist_and_a_device_that_is_not_there(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    what = subject(eager=squares())
    assert harness.main(what, ["--device", "cpu", "--quick", "--only", "N=5"]) == 2
    assert "no case of squares contains 'N=5'" in capsys.readouterr().err
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="2"):
        harness.main(what, ["--device", "cuda"])
    assert "sees no CUDA device here" in capsys.readouterr().err


def test_without_matplotlib_the_rows_are_there_and_the_picture_is_missed_by_name(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib.figure", None)
    what = subject(eager=squares())
    assert harness.main(what, ["--device", "cpu", "--quick", "--out", str(tmp_path)]) == 0
    assert "pip install 'bigft[bench]'" in capsys.readouterr().err
    assert [path.suffix for path in tmp_path.iterdir()] == [".csv"]


def test_a_picture_beside_the_rows(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="pip install 'bigft[bench]'")
    what = subject(eager=squares(), peer=absent)
    assert harness.main(what, ["--device", "cpu", "--quick", "--out", str(tmp_path)]) == 0
    (picture,) = tmp_path.glob("squares_cpu_*.png")
    assert picture.read_bytes().startswith(b"\x89PNG")
