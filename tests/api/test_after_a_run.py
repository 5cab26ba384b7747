"""What is left of a run in the process that trained it: nothing."""

from __future__ import annotations

import gc
import logging
import os
import threading
from pathlib import Path

import pytest
from api.process import CONFIG, nothing_changed, weights
from deepspeed import DeepSpeedEngine
from transformers import BertModel

import bigft
from bigft import api
from bigft.runtime import failpoints


def test_a_run_at_another_stage_changes_no_bit_of_the_next_one(place: Path) -> None:
    """ZeRO-3 puts a product of its own in the place of torch's."""
    for output, stage in (("before", 0), ("between", 3), ("after", 0)):
        over = {"parallel": {"zero_stage": stage}, "train.output_dir": output}
        with nothing_changed():
            bigft.train(CONFIG, over, nproc=1)
    assert weights("before") == weights("after")


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("fails", [False, True], ids=["to its end", "fails"])
def test_no_model_engine_file_or_thread_of_a_run_stays(
    place: Path, stage: int, fails: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def left() -> tuple[int, int, int]:
        gc.collect()
        held = [each for each in gc.get_objects() if isinstance(each, DeepSpeedEngine | BertModel)]
        return len(held), len(os.listdir("/proc/self/fd")), threading.active_count()

    def run(number: int) -> None:
        over = {"parallel.zero_stage": stage, "train.output_dir": f"out{number}"}
        bigft.train(CONFIG, {**over, "train.max_steps": 3}, nproc=1)

    # pytest keeps what is logged: an error, and so its frames.
    monkeypatch.setattr(logging.getLogger("bigft"), "propagate", False)
    failpoints.arm("train.step=raise@2" if fails else "")
    try:
        before = left()[0]
        run(0)
        after_first = left()
        failpoints.arm("train.step=raise@2" if fails else "")
        run(1)
    finally:
        failpoints.arm("")
    assert after_first[0] <= before
    assert left() == after_first


def test_a_call_within_another_one_of_its_thread_is_refused(place: Path) -> None:
    """As one from a signal handler is."""
    with api._alone(), pytest.raises(bigft.BadInput) as refused:
        bigft.predict("out", "a")
    assert str(refused.value) == (
        "bigft: called within another call of this thread; call it when the other one has returned"
    )
    assert bigft.train(CONFIG, {"train.max_steps": 1}, nproc=1).status == "finished"
