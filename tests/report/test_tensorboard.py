"""The TensorBoard sink, read back with TensorBoard's own reader."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from bigft.config.errors import BadInput
from bigft.report.tensorboard import TensorBoard


def read(output_dir: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulator.EventAccumulator(str(output_dir / "runs" / "run"))
    events.Reload()
    return {
        tag: [(point.step, point.value) for point in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_measurements_become_scalars_of_their_group(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    sink = TensorBoard(tmp_path, "run")
    sink({"event": "log", "time": 9.0, "step": 1, "loss": 0.5, "grad_norm": None})
    sink(
        {
            "event": "eval",
            "time": 9.0,
            "split": "validation",
            "step": 1,
            "epoch": 1.0,
            "eval_f1": 0.25,
        }
    )
    sink({"event": "note", "time": 9.0, "text": "no scalar"})
    sink({"event": "end", "time": 9.0, "status": "finished", "step": 1})
    assert read(tmp_path) == {"train/loss": [(1, 0.5)], "eval/f1": [(1, 0.25)]}


def test_steps_done_again_after_a_resume_replace_the_first_ones(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    first = TensorBoard(tmp_path, "run")
    for step in (1, 2, 3):
        first({"event": "log", "step": step, "loss": 1.0})
    first({"event": "end"})
    second = TensorBoard(tmp_path, "run")
    second({"event": "resume", "step": 1})
    second({"event": "log", "step": 2, "loss": 2.0})
    second({"event": "end"})
    assert read(tmp_path) == {"train/loss": [(1, 1.0), (2, 2.0)]}


def test_a_missing_package_is_refused_by_the_key_that_asks_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(BadInput, match=r"^report\.report_to: .*pip install 'bigft\[tensorboard\]'"):
        TensorBoard(tmp_path, "run")
