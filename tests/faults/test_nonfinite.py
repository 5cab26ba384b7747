"""A loss or gradient that is not finite on one rank: every rank skips the same step, to the bit."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from distributed.ranks import RankFailed, run_ranks
from distributed.scenarios import train
from faults.sick_steps import (
    SICK,
    STEPS,
    Layout,
    Trained,
    compare,
    lines_of,
    reads_in_a_step,
    train_sick,
)
from safetensors.torch import load_file, save_file

from bigft.training.checkpoint import TrainerState

Config = dict[str, Any]
pytestmark = pytest.mark.distributed

SICKNESSES = {
    "the loss is NaN": "loss",
    "the loss is Inf, its gradient finite": "loss",
    "the gradient is NaN": "gradient",
    "one weight's gradient is Inf": "gradient",
}
ALL = list(SICKNESSES)
TWO = ["the loss is Inf, its gradient finite", "one weight's gradient is Inf"]
SHORT = {
    Layout(0): ALL,
    Layout(1): TWO,
    Layout(2): ALL,
    Layout(3): TWO,
    Layout(1, "bf16"): TWO,
    Layout(2, "bf16"): TWO,
    Layout(3, "bf16"): TWO[:1],
    Layout(0, optim="adamw_8bit"): TWO,
    Layout(2, lora=True): TWO,
}
LONG = [
    *SHORT,
    Layout(0, lora=True),
    Layout(3, lora=True),
    Layout(2, optim="adamw_8bit"),
    Layout(2, offload=True),
    Layout(3, offload=True),
]


def cases() -> Iterator[Any]:
    for layout, sicknesses in SHORT.items():
        yield pytest.param(layout, sicknesses, id=str(layout))
    for layout in LONG:
        yield pytest.param(layout, ALL, id=f"all of {layout}", marks=pytest.mark.faults)


@pytest.mark.parametrize(("layout", "sicknesses"), [*cases()])
def test_all_ranks_skip_a_sick_step_to_the_bit(layout: Layout, sicknesses: list[str]) -> None:
    answers = run_ranks(compare, 2, layout, sicknesses)
    for sickness in sicknesses:
        for rank, answer in enumerate(answers):
            as_if_it_had_not_been(answer[sickness], answer["never"])
            says_what_was_sick(answer[sickness], rank, SICKNESSES[sickness])


def as_if_it_had_not_been(sick: Trained, never: Trained) -> None:
    """Weights, masters, states and step counts of the optimizer, and what came of the steps before
    and after: those of a run that never came to that step."""
    assert sick.bits == never.bits
    assert sick.step_counts == never.step_counts <= {STEPS - 1.0}
    assert {step: done for step, done in sick.done.items() if step != SICK[0]} == never.done
    assert all(math.isfinite(done.loss_sum) for done in never.done.values())


def says_what_was_sick(sick: Trained, rank: int, what: str) -> None:
    """The same on every rank; the samples are those of the micro-batch, where it is known."""
    step, sick_rank, micro_step = SICK
    for number, done in sick.done.items():
        assert done.nonfinite == what * (number == step)
        assert math.isfinite(done.grad_norm) == (number != step)
    if what == "loss":
        assert sick.suspects == lines_of(*SICK)
        assert sick.done[step].suspects == ((micro_step,) if rank == sick_rank else ())
    else:
        micro_batches = [(rank, micro_step) for rank in range(2) for micro_step in range(2)]
        assert sick.suspects == [line for at in micro_batches for line in lines_of(step, *at)]


@pytest.mark.parametrize("layout", [Layout(0), Layout(2, "bf16"), Layout(3)], ids=str)
def test_a_step_asks_the_device_once(layout: Layout) -> None:
    """For the gradient's norm; the decision to skip, and how much to clip, follow from it."""
    assert run_ranks(reads_in_a_step, 2, layout) == [1, 1]


def test_a_run_goes_on_after_sick_steps_and_tells_their_samples(
    config_for: Callable[..., Config], write_data: Callable[..., Path]
) -> None:
    data = write_data([3, 5, 8, 2, 7, 4, 6, 1])
    config = config_for("run", data, train__max_steps=6, train__global_batch_size=4)
    (events, results), failed = run_ranks(train_sick, 2, config, [1, 2, 4])[0]
    assert failed == ""
    told = [event for event in events if event["event"] == "nonfinite"]
    assert [(event["what"], event["in_a_row"]) for event in told] == [
        ("loss", 1),
        ("loss", 2),
        ("loss", 1),
    ]
    for event in told:
        assert len(event["samples"]) == 2  # of the second rank
        assert all(where.rpartition(":")[0] == str(data) for where in event["samples"])
    logs = [event for event in events if event["event"] == "log"]
    assert [event["num_targets"] > 0 for event in logs] == [True, False, False, True, False, True]
    # A step that was skipped says what it was: nothing was learnt, of a gradient that was Inf.
    learnt = [event["num_targets"] > 0 for event in logs]
    assert [math.isfinite(event["loss"]) for event in logs] == learnt
    assert [math.isfinite(event["grad_norm"]) for event in logs] == learnt
    assert math.isfinite(results["train_loss"])


def test_an_evaluation_without_a_score_is_never_the_best(
    config_for: Callable[..., Config], write_data: Callable[..., Path]
) -> None:
    """The first step makes weights that answer NaN ever after. Who branches off may fix that:
    the sick steps before count no more."""
    data = write_data([3, 5, 8, 2, 7, 4, 6, 1])
    keys: Config = {
        "data__validation_file": [str(data)],
        "optim__learning_rate": 1e30,
        "train__eval_strategy": "steps",
        "train__eval_steps": 1,
        "train__save_strategy": "steps",
        "train__save_steps": 3,
        "train__metric_for_best_model": "loss",
        "train__load_best_model_at_end": True,
        "train__early_stopping_patience": 4,
    }
    sick = config_for("sick", data, train__max_steps=3, **keys)
    ((events, results),) = run_ranks(train, 1, [sick])[0]
    assert math.isnan(results["eval_loss"])
    notes = [event["text"] for event in events if event["event"] == "note"]
    assert notes[-1] == "model/ holds the last weights, since no evaluation had a score"
    checkpoint = Path(sick["train"]["output_dir"], "checkpoint-3")
    state = TrainerState.read(checkpoint)
    assert (state.best_metric, state.best_step, state.evaluations_without_gain) == (None, None, 3)
    assert state.nonfinite_in_a_row == 2

    keys |= {"train__resume_from_checkpoint": str(checkpoint), "train__max_steps": 5}
    ((events, _),) = run_ranks(train, 1, [config_for("branch", data, **keys)])[0]
    assert [event["in_a_row"] for event in events if event["event"] == "nonfinite"] == [1, 2]


def test_a_run_ends_after_so_many_sick_steps_in_a_row(
    config_for: Callable[..., Config], write_data: Callable[..., Path]
) -> None:
    keys = {"train__max_steps": 9, "train__global_batch_size": 4, "train__max_nonfinite_steps": 4}
    data = write_data([3, 5, 8, 2, 7, 4, 6, 1])
    config = config_for("run", data, **keys)
    for answer, failed in run_ranks(train_sick, 2, config, [0, 1, 3, 4, 5, 6, 7]):
        assert answer is None
        assert failed.startswith(
            "the loss is not finite in step 7, which makes 4 in a row (train.max_nonfinite_steps)"
        )
        assert str(data) in failed


@pytest.mark.parametrize("stage", [0, 3])
def test_weights_that_are_not_finite_are_blamed_and_no_sample(
    stage: int,
    config_for: Callable[..., Config],
    write_data: Callable[..., Path],
    tiny_bert: Path,
    tmp_path: Path,
) -> None:
    shutil.copytree(tiny_bert, tmp_path / "bert")
    stored = load_file(tmp_path / "bert/model.safetensors")
    name = "bert.encoder.layer.1.output.dense.weight"
    stored[name][-1, -1] = math.nan  # in the part of the last rank
    save_file(stored, tmp_path / "bert/model.safetensors", metadata={"format": "pt"})
    config = config_for("run", write_data([3, 5, 8, 2]), parallel__zero_stage=stage)
    config["model"]["model_name_or_path"] = str(tmp_path / "bert")
    with pytest.raises(RankFailed, match=rf"step 1: .* NaN or an infinity \({name}\): no samp"):
        run_ranks(train, 2, [config])
