"""A run that is killed again and again is the run that was never killed, to the last bit.

Five times in 18 steps one rank or both get SIGKILL: at a random failpoint in a step, in a save, in
an evaluation, and once after a random time. Then the run ends in peace, and every log line, every
evaluation and the weights are compared with those of a run that nothing happened to.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from faults.harness import (
    Config,
    Places,
    Ranks,
    assert_same,
    finish,
    left_by,
    logged_steps,
    resumed,
)

from bigft.runtime.events import read_metrics
from bigft.runtime.run_directory import RunDirectory

pytestmark = pytest.mark.distributed

TARGETS = [3, 11, 1, 7, 2, 19, 5, 1, 8, 4, 13, 2, 6, 1, 9]
STEPS = 18
BETWEEN = 3  # the k-th kill, from 0, hits one of so many steps after step k * BETWEEN
LORA = {"method": "lora", "r": 4, "lora_alpha": 8, "lora_dropout": 0.1}
METHODS = {"full": {"method": "full"}, "lora": LORA}
CASES = [
    (method, stage, optim)
    for method in METHODS
    for stage in (0, 1, 2, 3)
    for optim in ("adamw_torch", "adamw_8bit")
]
SEED = int(os.environ.get("BIGFT_FAULTS_SEED", "0"))
RanksKilled = tuple[int, ...]


@dataclass(frozen=True)
class Killed:
    where: str
    ranks: RanksKilled
    seconds: float  # until no rank was left

    def __str__(self) -> str:
        return f"{self.where}, rank {' and '.join(map(str, self.ranks))}, {self.seconds:.1f} s"


@pytest.fixture
def config_of(
    config_for: Callable[..., Config], write_data: Callable[..., Path]
) -> Callable[..., Config]:
    data = write_data(TARGETS)

    def config(name: str, method: str, stage: int, optim: str) -> Config:
        keys: dict[str, Any] = {
            "model__dropout": 0.1,
            "data__validation_file": [str(data)],
            "data__test_file": [str(data)],
            "optim__optim": optim,
            "parallel__zero_stage": stage,
            "train__max_steps": STEPS,
            "train__global_batch_size": 4,
            "train__per_device_train_batch_size": 1,
            "train__eval_strategy": "steps",
            "train__eval_steps": 3,
            "train__save_strategy": "steps",
            "train__save_steps": 2,
            "train__save_total_limit": 2,
        }
        return {**config_for(name, data, **keys), "adapt": METHODS[method]}

    return config


@pytest.mark.parametrize(
    ("case", "kinds"),
    [
        (("full", 2, "adamw_torch"), ["checkpoint", "step"]),
        (("lora", 3, "adamw_8bit"), ["evaluate", "checkpoint"]),
    ],
)
def test_two_kills_lose_nothing(
    case: tuple[str, int, str], kinds: list[str], config_of: Callable[..., Config], tmp_path: Path
) -> None:
    survive(case, kinds, config_of, tmp_path)


@pytest.mark.faults
@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_five_kills_lose_nothing(
    case: tuple[str, int, str], config_of: Callable[..., Config], tmp_path: Path
) -> None:
    kinds = ["step", "checkpoint", "evaluate", "checkpoint", "moment"]
    random.Random(f"{SEED} {case}").shuffle(kinds)
    survive(case, kinds, config_of, tmp_path)


def survive(
    case: tuple[str, int, str], kinds: list[str], config_of: Callable[..., Config], scratch: Path
) -> None:
    draw = random.Random(f"{SEED} {case} {kinds}")
    whole, config = config_of("whole", *case), config_of("killed", *case)
    finish(whole, places=scratch / "places")
    places = [Places.of(scratch / "places", rank) for rank in range(2)]
    killed: list[Killed] = []
    for number, kind in enumerate(kinds):
        victims = draw.choice([(0,), (1,), (0, 1)])
        if kind == "moment":
            killed.append(at_a_moment(resumed(config), victims, draw))
        else:
            first = max(newest_checkpoint(config), number * BETWEEN) + 1
            killed.append(at_a_failpoint(resumed(config), first, kind, victims, places, draw))
        print(f"seed {SEED}, {case}: killed at {killed[-1]}")
    finish(resumed(config))
    assert_same(left_by(config), left_by(whole))
    write_row(case, killed, len(logged_steps(config)) - STEPS)


def at_a_failpoint(
    config: Config,
    first: int,
    kind: str,
    victims: RanksKilled,
    places: list[Places],
    draw: random.Random,
) -> Killed:
    """Of that kind, in one of BETWEEN steps from `first` on, or after it."""
    seen = places[victims[0]]
    candidates = seen.in_steps(first, first + BETWEEN - 1, kind)
    # First the name: some are passed a hundred times for one of others.
    name = draw.choice(sorted({seen.names[at] for at in candidates}))
    at = draw.choice([at for at in candidates if seen.names[at] == name])
    failpoint = seen.spec(at, newest_checkpoint(config), "stop")
    with Ranks(config, failpoints=f"{failpoint}#{victims[0]}") as ranks:
        ranks.wait_until_held(victims[0])
        return kill(ranks, victims, failpoint)


def at_a_moment(config: Config, victims: RanksKilled, draw: random.Random) -> Killed:
    """A random part of a step's time after the log line of the launch's second step."""
    metrics, launched = RunDirectory(config["train"]["output_dir"]).metrics_file, time.time()
    share = draw.random()

    def logged() -> list[int]:
        events = [e for e in read_metrics(metrics) if e["event"] == "log"]
        return [event["step"] for event in events if event["time"] > launched]

    with Ranks(config) as ranks:
        ranks.wait_until(lambda: len(logged()) > 0)
        before = time.monotonic()
        ranks.wait_until(lambda: len(logged()) > 1)
        time.sleep(share * (time.monotonic() - before))
        return kill(ranks, victims, f"{share:.2f} steps after step {logged()[1]}")


def kill(ranks: Ranks, victims: RanksKilled, where: str) -> Killed:
    for rank in victims:
        ranks.send(rank, signal.SIGKILL)
    died = time.monotonic()
    codes = ranks.wait()
    assert all(codes[rank] == -signal.SIGKILL for rank in victims), (codes, ranks.output())
    assert 0 not in codes
    return Killed(where, victims, time.monotonic() - died)


def newest_checkpoint(config: Config) -> int:
    checkpoints = RunDirectory(config["train"]["output_dir"]).checkpoints()
    return checkpoints[-1][0] if checkpoints else 0


def write_row(case: tuple[str, int, str], killed: list[Killed], steps_again: int) -> None:
    """Appends to the table of docs/reliability.md where BIGFT_FAULTS_TABLE names a file for it."""
    if not (file := os.environ.get("BIGFT_FAULTS_TABLE")):
        return
    method, stage, optim = case
    counts = {"step.": 0, "checkpoint.": 0, "evaluate.": 0, "steps after": 0}
    for kind in counts:
        counts[kind] = sum(kind in kill.where for kill in killed)
    slowest = max(kill.seconds for kill in killed)
    cells = [method, stage, optim, *counts.values(), steps_again, f"{slowest:.1f}", "0", "equal"]
    with Path(file).open("a") as table:
        print("|", " | ".join(map(str, cells)), "|", file=table)
