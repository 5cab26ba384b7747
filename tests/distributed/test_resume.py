"""A run that is stopped and continued in new processes is the run that was never stopped."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed.ranks import run_ranks
from distributed.scenarios import losses, train
from safetensors.torch import load_file

from bigft.config.errors import BadInput
from bigft.config.sections import RunConfig
from bigft.runtime.run_directory import RunDirectory
from bigft.training.checkpoint import TrainerState, checkpoint_to_resume
from bigft.training.inputs import prepare

pytestmark = pytest.mark.distributed

TARGETS = [3, 11, 1, 7, 2, 19, 5, 1, 8, 4, 13, 2, 6, 1, 9]
CASES = [
    {"optim__optim": optim, "parallel__zero_stage": stage, "train__bf16": bf16}
    for stage, optim, bf16 in [
        (0, "adamw_torch", False),
        (0, "adamw_8bit", False),
        (1, "adamw_torch", True),
        (2, "adamw_torch", False),
        (2, "adamw_8bit", False),
        (3, "adamw_torch", False),
    ]
]


def test_losses_and_weights_continue_to_the_last_bit(
    config_for: Callable[..., dict[str, Any]], write_data: Callable[..., Path]
) -> None:
    data = write_data(TARGETS)

    def configs(name: str, **keys: Any) -> list[dict[str, Any]]:
        return [
            config_for(
                f"{name}{number}",
                data,
                model__dropout=0.1,
                train__global_batch_size=4,
                train__per_device_train_batch_size=1,
                # Not every step has a log line: the sums since the last one must survive.
                train__logging_steps=3,
                **case,
                **keys,
            )
            for number, case in enumerate(CASES)
        ]

    whole = run_ranks(train, 2, configs("whole"))[0]
    stopped = run_ranks(train, 2, configs("cut"), 3)[0]
    continued = run_ranks(train, 2, configs("cut", train__resume_from_checkpoint=True))[0]
    for number, case in enumerate(CASES):
        expected = losses(whole[number])
        assert list(expected) == [3, 6, 8], case
        assert stopped[number][1] is None, case  # no results: it was asked to stop
        # The stop is agreed at the next step's boundary: nothing of step 4 was done.
        assert losses(stopped[number]) == {3: expected[3]}, case
        assert losses(continued[number]) == {6: expected[6], 8: expected[8]}, case
        ours, theirs = (
            load_file(Path(config[number]["train"]["output_dir"], "model", "model.safetensors"))
            for config in (configs("whole"), configs("cut"))
        )
        for name, tensor in ours.items():
            assert torch.equal(tensor, theirs[name]), (case, name)


def test_sums_since_the_last_log_line_survive_a_checkpoint(
    config_for: Callable[..., dict[str, Any]], write_data: Callable[..., Path]
) -> None:
    def config(name: str, **keys: Any) -> list[dict[str, Any]]:
        return [
            config_for(
                name,
                write_data(TARGETS),
                train__logging_steps=4,
                train__save_strategy="steps",
                train__save_steps=6,  # between the log lines of steps 4 and 8
                train__global_batch_size=4,
                train__per_device_train_batch_size=2,
                **keys,
            )
        ]

    (whole,) = run_ranks(train, 1, config("run"))[0]
    directory = Path(config("run")[0]["train"]["output_dir"])
    shutil.rmtree(directory / "checkpoint-8")
    (again,) = run_ranks(train, 1, config("run", train__resume_from_checkpoint=True))[0]
    assert losses(again) == {8: losses(whole)[8]}
    assert again[1]["train_loss"] == whole[1]["train_loss"]
    tokens = {e["step"]: e["num_tokens"] for e in whole[0] if e["event"] == "log"}
    assert [e["num_tokens"] for e in again[0] if e["event"] == "log"] == [tokens[8]]
    ended = TrainerState.read(directory / "checkpoint-8")
    assert ended.total_tokens == sum(tokens.values())
    cut = TrainerState.read(directory / "checkpoint-6")
    assert 0 < cut.window_seconds < ended.training_seconds - cut.training_seconds


def test_a_run_continued_with_the_other_head_says_so(
    config_for: Callable[..., dict[str, Any]], write_data: Callable[..., Path]
) -> None:
    """The heads agree but for rounding: the bits are no longer those of the uninterrupted run."""
    data = write_data(TARGETS)
    keys = {"train__save_strategy": "steps", "train__save_steps": 2}
    said = []
    for steps, fused in ((2, True), (4, True), (6, False)):
        resume = {"train__resume_from_checkpoint": True, "model__fused_head": fused}
        config = config_for("run", data, **keys, **resume, train__max_steps=steps)
        ((events, _),) = run_ranks(train, 1, [config])[0]
        notes = [event["text"] for event in events if event["event"] == "note"]
        said.append([text for text in notes if "head trained" in text])
    assert said == [[], [], ["up to step 4 the fused head trained: rounding differs from here on"]]


def test_a_checkpoint_of_another_run_is_refused(
    config_for: Callable[..., dict[str, Any]], write_data: Callable[..., Path]
) -> None:
    keys = {"train__save_strategy": "epoch", "train__max_steps": 2}
    config = config_for("run", write_data(TARGETS), **keys)
    run_ranks(train, 1, [config])
    directory = RunDirectory(config["train"]["output_dir"])

    def refusal(world_size: int, data: Path, **changed: Any) -> str:
        resume = {"train__resume_from_checkpoint": True, **changed}
        other = config_for("run", data, **keys, **resume)
        run = prepare(RunConfig.model_validate(other))
        with pytest.raises(BadInput) as refused:
            checkpoint_to_resume(run, directory, world_size)
        return str(refused.value)

    same = write_data(TARGETS)
    assert "saved by 1 ranks, these are 2; start 1 ranks" in refusal(2, same)
    assert "trained with train.global_batch_size null, this config says 4; keep" in refusal(
        1, same, train__global_batch_size=4
    )
    assert (
        "optim.learning_rate 0.001, this config says 0.1; keep optim.learning_rate of"
        in refusal(1, same, optim__learning_rate=0.1)
    )
    assert "other data, tokenizer or task options" in refusal(1, write_data([*TARGETS, 5]))
    assert "checkpoint-7: checkpoint-7: cannot be read" in refusal(
        1, same, train__resume_from_checkpoint=str(directory.path / "checkpoint-7")
    )


def test_the_rates_of_a_run_that_branches_off_are_its_configs(
    config_for: Callable[..., dict[str, Any]], write_data: Callable[..., Path]
) -> None:
    """A checkpoint brings its optimizer's options along; what the user changed counts."""
    data = write_data(TARGETS)
    keys = {"train__save_strategy": "steps", "train__save_steps": 2, "train__max_steps": 4}
    runs = [config_for(f"z{stage}", data, parallel__zero_stage=stage, **keys) for stage in range(4)]
    run_ranks(train, 1, runs)
    slower = [
        config_for(
            f"slow{stage}",
            data,
            parallel__zero_stage=stage,
            optim__learning_rate=1e-6,
            train__resume_from_checkpoint=str(Path(run["train"]["output_dir"], "checkpoint-2")),
            **keys,
        )
        for stage, run in enumerate(runs)
    ]
    for events, _ in run_ranks(train, 1, slower)[0]:
        rates = {e["step"]: e["learning_rate"] for e in events if e["event"] == "log"}
        assert rates == pytest.approx({3: 0.5e-6, 4: 0.25e-6})
        notes = [event["text"] for event in events if event["event"] == "note"]
        assert any(text.startswith("optim.learning_rate is 1e-06 from here on") for text in notes)
