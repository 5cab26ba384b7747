"""A learning rate, a warm-up and a number of steps that cannot be meant are told with numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bigft.config import load_config
from bigft.data.order import Order
from bigft.training.schedule_notes import HIGHEST_LEARNING_RATE, schedule_notes

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("*.yaml"))
ORDER = Order(lengths=np.ones(80, np.int64), seed=0, global_batch_size=8)  # 10 steps an epoch


def notes(*words: str) -> list[str]:
    given = ["task=token-classification", "model.model_name_or_path=m", "train.output_dir=out"]
    config = load_config(None, [*given, "data.train_file=a.jsonl", *words]).config
    return list(schedule_notes(config, ORDER))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["optim.learning_rate=5"], "optim.learning_rate 5 is far too high: adamw_torch on what is "
         "trained here (full) rarely takes more than 0.002, and the loss may only rise"),
        (["optim.learning_rate=5e-3"], "(full) rarely takes more than 0.002"),
        (["optim.learning_rate=0.5", "model.from_scratch=true"],
         "(from scratch) rarely takes more than 0.02"),
        (["optim.learning_rate=0.02", "adapt.method=lora"], "(lora) rarely takes more than 0.01"),
        (["optim.learning_rate=0.001", "optim.optim=lion_8bit"], "more than 0.00067"),
        (["optim.learning_rate=5", "optim.optim=sgd"], "sgd on what is trained here (full) rarely"),
        (["optim.head_learning_rate=3"], "optim.head_learning_rate 3 is far too high"),
    ],
)  # fmt: skip
def test_a_learning_rate_that_is_far_too_high(words: list[str], told: str) -> None:
    (note,) = notes(*words)
    assert told in note


@pytest.mark.parametrize(
    "words",
    [
        ["optim.learning_rate=1e-3"],
        ["optim.learning_rate=1e-2", "model.from_scratch=true"],
        ["optim.learning_rate=3e-3", "adapt.method=lora"],
        ["optim.learning_rate=0.3", "adapt.method=prompt", "task=causal-lm"],
        ["optim.learning_rate=0.1", "optim.optim=sgd"],
        ["optim.head_learning_rate=1e-2"],
        ["optim.warmup_steps=0.1"],
        ["optim.warmup_steps=29"],
        ["train.max_steps=30"],
    ],
)
def test_what_is_usual_needs_no_note(words: list[str]) -> None:
    assert notes(*words) == []


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_no_recipe_is_doubted(path: Path) -> None:
    config = load_config(str(path)).config
    order = Order(lengths=np.ones(10_000, np.int64), seed=0, global_batch_size=32)
    assert list(schedule_notes(config, order)) == []


@pytest.mark.parametrize(
    ("warmup", "steps", "told"),
    [
        ("500", 30, "the warm-up of 500 steps (optim.warmup_steps 500) does not end within the "
         "run's 30: the learning rate reaches 2.9e-06, not optim.learning_rate 5e-05"),
        ("30", 30, "reaches 4.8e-05, not"),
        ("0.1", 1, "the warm-up of 1 steps (optim.warmup_steps 0.1) does not end within the "
         "run's 1: the learning rate reaches 0, not"),
    ],
)  # fmt: skip
def test_a_warm_up_that_outlasts_the_run(warmup: str, steps: int, told: str) -> None:
    (note,) = notes(f"optim.warmup_steps={warmup}", f"train.max_steps={steps}")
    assert told in note


@pytest.mark.parametrize("epochs", [2, 3])  # 3 is the default, and may be written too
def test_max_steps_wins_over_stated_epochs(epochs: int) -> None:
    assert notes(f"train.num_train_epochs={epochs}", "train.max_steps=45") == [
        f"train.max_steps 45 wins over train.num_train_epochs {epochs}: the run is 4.5 epochs long"
    ]


def test_every_method_has_a_highest_rate() -> None:
    from bigft.config.adapt import METHOD_NAMES

    assert set(METHOD_NAMES) - {"bottleneck"} <= set(HIGHEST_LEARNING_RATE)
