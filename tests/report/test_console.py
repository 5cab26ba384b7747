"""What events look like as lines of text."""

from __future__ import annotations

import io

import pytest

from bigft.report.console import Console, duration
from bigft.runtime.events import Event

START = {
    "event": "start",
    "time": 0.0,
    "total_steps": 600,
    "num_train_epochs": 3,
    "num_samples": 3394,
    "global_batch_size": 16,
    "world_size": 2,
    "trainable_parameters": 22_713_216,
}


def log(step: int, time: float, **more: object) -> Event:
    return {
        "event": "log",
        "time": time,
        "step": step,
        "epoch": step / 60,
        "loss": 2.10341,
        "learning_rate": 1.2e-4,
        "grad_norm": 3.14,
        "num_targets": 99,
        "tokens_per_second": 812.4,
        **more,
    }


def lines(*events: Event) -> list[str]:
    stream = io.StringIO()
    console = Console(stream)
    for event in events:
        console(event)
    return stream.getvalue().splitlines()


def test_a_log_line_tells_progress_speed_and_the_time_left() -> None:
    _, first, second = lines(START, log(10, 50.0), log(20, 52.5))
    numbers = "loss 2.1034  lr 1.2e-04  grad_norm 3.1  812 tokens/s"
    assert first == f"step 10/600  epoch 0.17  {numbers}"
    # 10 steps in 2.5 s: the 50 s until the first log, which hold the start, do not count.
    assert second == f"step 20/600  epoch 0.33  {numbers}  2m25s left"


@pytest.mark.parametrize(
    ("numbers", "shown"),
    [
        ({"grad_norm": 0.0271}, "grad_norm 0.027"),
        ({"grad_norm": 3.2e-7}, "grad_norm 3.2e-07"),
        ({"grad_norm": 0.0}, "grad_norm 0.0"),
        ({"grad_norm": 4.4e9}, "grad_norm 4.4e+09"),
        ({"loss": 0.0000312}, "loss 3.1e-05"),
        ({"loss": 7273.25}, "loss 7273.2500"),
        ({"epoch": 0.00123}, "epoch 0.0012"),
        ({"tokens_per_second": 0.42}, "0.42 tokens/s"),
        ({"cpu_wait": 0.1}, "cpu_wait 10%"),
    ],
)
def test_a_number_is_shown_with_digits_that_tell_something(
    numbers: dict[str, float], shown: str
) -> None:
    assert shown in lines(START, log(10, 50.0, **numbers))[1].split("  ")


def test_a_small_score_is_shown_with_digits_that_tell_something() -> None:
    event = {"event": "eval", "split": "test", "step": 1, "eval_loss": 2.5e-6, "eval_f1": 0.0}
    assert lines(event) == ["test at step 1  eval_loss 2.5e-06  eval_f1 0.0000"]


def test_a_run_that_has_its_cores_to_itself_says_nothing_of_them() -> None:
    assert "cpu_wait" not in lines(START, log(10, 50.0, cpu_wait=0.09))[1]


def test_numbers_that_are_missing_or_not_finite_leave_no_gap() -> None:
    line = lines(START, log(10, 50.0, loss=None, grad_norm=None))[1]
    assert line == "step 10/600  epoch 0.17  lr 1.2e-04  812 tokens/s"


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            START,
            "training: 600 steps, 3 epochs, 3,394 samples, 16 samples a step, world size 2, "
            "22,713,216 trainable parameters",
        ),
        (
            {
                "event": "eval",
                "split": "validation",
                "step": 100,
                "epoch": 1.0,
                "eval_loss": 0.25,
                "eval_f1": 0.43911,
                "eval_missing": None,
                "eval_report": "text",
            },
            "validation at step 100  eval_loss 0.2500  eval_f1 0.4391",
        ),
        (
            {"event": "eval", "split": "test", "step": 600, "test_f1": 0.5},
            "test at step 600  test_f1 0.5000",
        ),
        (
            {"event": "checkpoint", "step": 5, "path": "o/checkpoint-5", "seconds": 0.84},
            "saved o/checkpoint-5 in 0.8s",
        ),
        (
            {"event": "resume", "step": 5, "path": "o/checkpoint-5"},
            "going on from step 5 (o/checkpoint-5)",
        ),
        ({"event": "resume", "step": 0, "path": None}, ""),
        ({"event": "signal", "signal": "SIGUSR1"}, "SIGUSR1: saving and stopping"),
        (
            {"event": "cpu_contention", "step": 10, "cpu_wait": 0.344},
            "slowed down: the run's threads waited 34% of their time for cores that other "
            "processes used, or other ranks; `top` shows which",
        ),
        (
            {"event": "save_failed", "step": 5, "why": "rank 1: No space left on device"},
            "step 5 was NOT saved: rank 1: No space left on device",
        ),
        (
            {"event": "nonfinite", "step": 5, "what": "loss", "samples": ["a:1", "b:2"]},
            "step 5 is skipped: its loss is not finite; samples: a:1, b:2",
        ),
        (
            {"event": "end", "status": "finished", "step": 600, "train_runtime": 330.2},
            "finished at step 600 after 5m30s",
        ),
        (
            {"event": "end", "status": "finished", "step": 6, "warning": "the loss rose"},
            "finished at step 6; the loss rose",
        ),
        (
            {"event": "end", "status": "failed", "why": "loss is NaN", "exit_code": 1},
            "failed: loss is NaN",
        ),
        ({"event": "note", "text": "bf16 raises zero_stage to 1"}, "bf16 raises zero_stage to 1"),
    ],
    ids=lambda value: value["event"] if isinstance(value, dict) else "",
)
def test_every_event_for_people_has_its_line(event: Event, line: str) -> None:
    assert lines(event) == ([line] if line else [])


def test_a_report_keeps_its_lines() -> None:
    event = {"event": "report", "split": "test", "step": 7, "text": "a  b\n1  2"}
    title = "test, measured with the weights of step 7:"
    assert lines(event) == [title, "a  b", "1  2"]


def test_events_that_are_not_for_people_print_nothing() -> None:
    assert lines({"event": "probe", "step": 0}) == []


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0s"),
        (9.94, "9.9s"),
        (10, "10s"),
        (59.6, "1m00s"),
        (130, "2m10s"),
        (3599.7, "1h00m"),
        (11_100, "3h05m"),
        (187_200, "2d04h"),
    ],
)
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text
