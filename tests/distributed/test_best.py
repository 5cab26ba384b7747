"""The best checkpoint is kept, found again after a resume, and is what a run leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from distributed.ranks import run_ranks
from distributed.scenarios import train

pytestmark = pytest.mark.distributed

TARGETS = [3, 11, 1, 7, 2, 19, 5, 1, 8, 4, 13, 2, 6, 1, 9]


def evaluations(answer: Any) -> list[dict[str, Any]]:
    return [
        event for event in answer[0] if event["event"] == "eval" and event["split"] == "validation"
    ]


def test_early_stopping_leaves_the_best_model_behind(
    config_for: Callable[..., dict[str, Any]], write_data: Callable[..., Path]
) -> None:
    data = write_data(TARGETS)
    keys: dict[str, Any] = {
        "data__validation_file": [str(data)],
        "data__test_file": [str(data)],
        # First it learns; when the rate has warmed up it is far too high, and what was learnt goes.
        "optim__learning_rate": 0.5,
        "optim__warmup_steps": 0.9,
        "train__num_train_epochs": 20.0,
        "train__eval_strategy": "steps",
        "train__eval_steps": 1,
        "train__save_strategy": "best",
        "train__save_total_limit": 1,
        "train__load_best_model_at_end": True,
        "train__metric_for_best_model": "eval_loss",
        "train__early_stopping_patience": 3,
        "train__global_batch_size": 8,
        "train__per_device_train_batch_size": 4,
    }
    (whole,) = run_ranks(train, 2, [config_for("whole", data, **keys)])[0]
    seen = evaluations(whole)
    scores = [event["eval_loss"] for event in seen]
    best = scores.index(min(scores))
    assert 0 < best < len(scores) - 1
    # Three evaluations without a better one, and not a step more.
    assert len(scores) == best + 1 + 3 < 40
    head, *notes = [event["text"] for event in whole[0] if event["event"] == "note"]
    assert head.startswith("model.fused_head: ")
    assert notes == ["stopped early: 3 evaluations without a better loss"]

    directory = Path(config_for("whole", data)["train"]["output_dir"])
    checkpoint = f"checkpoint-{seen[best]['step']}"
    # The last one stays too, for who is interrupted from here on.
    last = f"checkpoint-{seen[-1]['step']}"
    assert {path.name for path in directory.glob("checkpoint-*")} == {checkpoint, last}
    assert (directory / "best").readlink() == Path(checkpoint)
    assert whole[1]["eval_loss"] == min(scores)
    # The test set is the validation set here: scored with the best weights, not the last.
    assert whole[1]["test_loss"] == pytest.approx(min(scores), rel=1e-6)
    tests = [event for event in whole[0] if event["event"] == "eval" and event["split"] == "test"]
    assert [event["step"] for event in tests] == [seen[best]["step"]]

    # Stopped in the middle and continued: the same evaluations, the same end.
    stopped = run_ranks(train, 2, [config_for("cut", data, **keys)], best + 2)[0]
    assert stopped[0][1] is None
    keys["train__resume_from_checkpoint"] = True
    (again,) = run_ranks(train, 2, [config_for("cut", data, **keys)])[0]
    later = [event["eval_loss"] for event in evaluations(again)]
    # It was asked to stop before the evaluation of step best + 2: that one is owed. At the end the
    # best weights, which an earlier process scored, are scored again.
    assert later == [*scores[best + 1 :], min(scores)]
    assert again[1]["eval_loss"] == whole[1]["eval_loss"]
    assert again[1]["test_loss"] == whole[1]["test_loss"]
