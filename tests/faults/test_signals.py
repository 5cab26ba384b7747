"""SIGUSR1, SIGUSR2 or SIGTERM to one rank, wherever it is: one agreed save, exit code 75, no step
lost or done twice, and the run that goes on ends as the one that was never stopped.

A failpoint holds the rank at a chosen place; there it gets its signal and goes on.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from distributed.causal_runs import save_model, write_samples
from faults.harness import (
    Config,
    Left,
    Places,
    Ranks,
    assert_same,
    finish,
    left_by,
    logged_steps,
    resumed,
)
from waiting import PATIENCE, wait_until

from bigft.config.exit_codes import EXIT_RESUMABLE
from bigft.runtime.events import read_metrics
from bigft.runtime.run_directory import RunDirectory

pytestmark = pytest.mark.distributed

STEPS = 6  # an evaluation after 3 and 6, a checkpoint after 4 and 6
SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)


class Whole(NamedTuple):
    """A run that nothing happened to."""

    config: Config
    left: Left
    places: list[Places]


def config_in(folder: Path, output: Path) -> Config:
    """A causal LM whose evaluations generate; the folder holds its model and its samples."""
    data = [str(folder / "train.jsonl")]
    task = {"name": "causal-lm", "predict_with_generate": True, "generation": {"max_new_tokens": 4}}
    return {
        "task": task,
        "model": {"model_name_or_path": str(folder / "model"), "dropout": 0.1},
        "data": {
            "train_file": data,
            "validation_file": data,
            "test_file": data,
            "max_eval_samples": 6,
        },
        "optim": {"learning_rate": 1e-3},
        "parallel": {"zero_stage": 2},
        "train": {
            "output_dir": str(output),
            "max_steps": STEPS,
            "global_batch_size": 4,
            "per_device_train_batch_size": 1,
            "per_device_eval_batch_size": 1,
            "logging_steps": 1,
            "eval_strategy": "steps",
            "eval_steps": 3,
            "save_strategy": "steps",
            "save_steps": 4,
        },
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    save_model(folder / "model")
    write_samples(folder / "train.jsonl")
    config = config_in(folder, folder / "run")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("BIGFT_CACHE", str(folder / "cache"))
        finish(config, places=folder / "places")
    places = [Places.of(folder / "places", rank) for rank in range(2)]
    return Whole(config, left_by(config), places)


def in_first_step(places: Places) -> int:
    return middle(places.in_steps(1, 1, "step"))


def in_a_step(places: Places) -> int:
    return middle(places.in_steps(2, 2, "step"))


def in_a_save(places: Places) -> int:
    return middle(places.in_steps(4, 4, "checkpoint"))


def in_an_evaluation(places: Places) -> int:
    return middle(places.in_steps(3, 3, "evaluate"))


def in_a_generation(places: Places) -> int:
    return middle(places.in_steps(3, 3, "generate"))


def in_the_last_evaluation(places: Places) -> int:
    """Of the test set, after the last save; an export comes after it."""
    generations = places.in_steps(STEPS, STEPS, "generate")
    saves = [at for at in places.in_steps(STEPS, STEPS, "checkpoint") if at < generations[-1]]
    return middle([at for at in generations if at > saves[-1]])


def middle(candidates: list[int]) -> int:
    return candidates[len(candidates) // 2]


# With the step that is done and saved when the signal came there.
PLACES: dict[Callable[[Places], int], int] = {
    in_first_step: 1,
    in_a_step: 2,
    in_a_save: 4,
    in_an_evaluation: 3,
    in_a_generation: 3,
    in_the_last_evaluation: 6,
}
# Of every place, rank and signal: each place once, and each signal at two of them.
SHORT = [(place, number % 2, SIGNALS[number % len(SIGNALS)]) for number, place in enumerate(PLACES)]


def cases() -> Iterator[Any]:
    for case in itertools.product(PLACES, (0, 1), SIGNALS):
        place, rank, number = case
        marks = [] if case in SHORT else [pytest.mark.faults]
        name = f"{number.name} to rank {rank} {place.__name__}".replace("_", " ")
        yield pytest.param(*case, marks=marks, id=name)


@pytest.mark.parametrize(("place", "rank", "number"), list(cases()))
def test_a_signal_to_one_rank_stops_all_at_one_step(
    place: Callable[[Places], int],
    rank: int,
    number: signal.Signals,
    whole: Whole,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = PLACES[place]
    folder = Path(whole.config["model"]["model_name_or_path"]).parent
    monkeypatch.setenv("BIGFT_CACHE", str(folder / "cache"))
    config = config_in(folder, tmp_path / "run")
    places = whole.places[rank]
    with Ranks(config, failpoints=f"{places.spec(place(places), 0, 'stop')}#{rank}") as ranks:
        ranks.wait_until_held(rank)
        ranks.send(rank, number)
        ranks.send(rank, signal.SIGCONT)
        assert ranks.wait() == [EXIT_RESUMABLE] * 2, ranks.output()
    directory = RunDirectory(config["train"]["output_dir"])
    assert directory.read()["status"] == "resumable"
    assert logged_steps(config) == list(range(1, done + 1))
    assert directory.checkpoints()[-1][0] == done
    events = read_metrics(directory.metrics_file)
    assert [event["step"] for event in events if event["event"] == "signal"] == [done]
    assert [event["step"] for event in events if event["event"] == "checkpoint"][-1] == done

    finish(resumed(config))
    assert logged_steps(config) == list(range(1, STEPS + 1))  # nothing was done twice
    assert_same(left_by(config), whole.left)


def test_max_time_leaves_room_for_a_slow_save(
    config_for: Callable[..., Config], write_data: Callable[..., Path]
) -> None:
    """Each fsync takes a tenth of a second here: a save takes longer than its default estimate, and
    the run that measured the first one stops early enough for the last."""
    data = write_data([3, 5, 8, 2])
    keys: dict[str, Any] = {"train__save_strategy": "steps", "train__save_steps": 3}
    started = time.time()
    finish(config_for("first", data, **keys, train__max_steps=3), seconds_per_fsync=0.1)
    seconds = round(2 * (time.time() - started)) + 5  # for a start, and some saves
    max_time = f"0:{seconds // 60:02}:{seconds % 60:02}"
    keys |= {"train__max_steps": 100_000, "train__max_time": max_time}
    config = config_for("run", data, **keys)
    directory = RunDirectory(config["train"]["output_dir"])
    started = time.time()
    with Ranks(config, seconds_per_fsync=0.1) as ranks:
        assert ranks.wait() == [EXIT_RESUMABLE] * 2, ranks.output()
    assert "train.max_time" in directory.read()["why"]
    (*_, saved) = [e for e in read_metrics(directory.metrics_file) if e["event"] == "checkpoint"]
    assert saved["step"] == logged_steps(config)[-1]
    assert saved["time"] - started < seconds


def test_a_signal_while_data_is_prepared_ends_the_process_with_75(
    config_for: Callable[..., Config], write_data: Callable[..., Path], tmp_path: Path
) -> None:
    config = config_for("run", write_data([9] * 20_000), train__max_steps=1)
    file, cache = tmp_path / "config.yaml", Path(os.environ["BIGFT_CACHE"])
    file.write_text(json.dumps(config))
    words = [sys.executable, "-m", "bigft", "train", str(file), "--nproc", "2"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        wait_until(lambda: process.poll() is not None or (cache.exists() and any(cache.iterdir())))
        process.send_signal(signal.SIGTERM)
        output = process.communicate(timeout=PATIENCE)[0].decode()
    finally:
        process.kill()
    assert process.returncode == EXIT_RESUMABLE, output
    assert "Traceback" not in output
    run = RunDirectory(config["train"]["output_dir"]).read()
    assert (run["status"], run["exit_code"]) == ("resumable", EXIT_RESUMABLE)
    # Nothing was trained yet, so that a smaller file serves as well.
    finish(resumed(config_for("run", write_data([9] * 8), train__max_steps=1)))
    assert logged_steps(config) == [1]


def test_a_stop_after_the_best_weights_were_loaded_never_saves_them_as_the_last_steps(
    config_for: Callable[..., Config], write_data: Callable[..., Path], tmp_path: Path
) -> None:
    """The save of the last step fails, then the best weights take its place, then it is stopped."""
    data = write_data([3, 5, 8, 2])
    keys: dict[str, Any] = {
        "data__validation_file": [str(data)],
        "data__test_file": [str(data)],
        "train__max_steps": 3,
        "train__eval_strategy": "steps",
        "train__eval_steps": 1,
        "train__save_strategy": "best",
        "train__metric_for_best_model": "loss",
        "train__greater_is_better": True,  # the first evaluation's is: the loss falls
        "train__load_best_model_at_end": True,
    }
    whole = config_for("whole", data, **keys)
    finish(whole, places=tmp_path / "places")
    places = Places.of(tmp_path / "places", 0)
    # Only the first rank renames; which one makes a directory is a race.
    saves = [at for at in places.in_steps(3, 3, "checkpoint") if "rename" in places.names[at]]
    evaluations = places.in_steps(3, 3, "evaluate")
    fails, held = places.spec(saves[0], 0, "ENOSPC"), places.spec(evaluations[-1], 0, "stop")
    config = config_for("run", data, **keys)
    with Ranks(config, failpoints=f"{fails}#0;{held}#0") as ranks:
        ranks.wait_until_held(0)
        ranks.send(0, signal.SIGTERM)
        ranks.send(0, signal.SIGCONT)
        assert ranks.wait() == [1, 1], ranks.output()
    directory = RunDirectory(config["train"]["output_dir"])
    assert [step for step, _ in directory.checkpoints()] == [1]
    run = directory.read()
    assert run["status"] == "resumable"
    assert "step 3 could not be saved: its save failed, and then the weights" in run["why"]
    finish(resumed(config))
    assert_same(left_by(config), left_by(whole))
