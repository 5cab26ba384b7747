"""`bigft.train`, `evaluate` and `predict`: the verbs' path, in a process that is left as it was
found."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from api.process import CONFIG, command, nothing_changed, weights
from waiting import wait_until

import bigft
from bigft.runtime import failpoints
from bigft.runtime.events import read_metrics
from bigft.runtime.run_directory import RunDirectory

REPOSITORY = Path(__file__).resolve().parents[2]
TIMES = {"runtime", "samples_per_second"}


@pytest.fixture
def failing() -> Iterator[None]:
    """The second step of a run in this process raises."""
    failpoints.arm("train.step=raise@2")
    yield
    failpoints.arm("")


@pytest.fixture(scope="module")
def trained(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run's directory."""
    from conftest import TEST, TRAIN

    folder = tmp_path_factory.mktemp("trained")
    for name, rows in {"train": TRAIN, "test": TEST}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = {
        "task": "token-classification",
        "model": {"model_name_or_path": tiny_model},
        "data": {f"{name}_file": folder / f"{name}.jsonl" for name in ("train", "test")},
        "train": {"output_dir": folder / "out", "max_steps": 2},
    }
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("BIGFT_CACHE", str(folder / "cache"))
        environment.setenv("DS_ACCELERATOR", "cpu")
        return bigft.train(config, nproc=1).output_dir


def test_importing_bigft_imports_nothing_else_and_a_refused_config_no_torch() -> None:
    script = (
        "import bigft, sys\n"
        "print(sorted(name for name in sys.modules if name.startswith('bigft.')))\n"
        "try: bigft.train({'train': {'output_dr': 'out'}})\n"
        "except bigft.BadInput as refused: print(refused)\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    first, *problems, last = done.stdout.splitlines()
    assert (first, last) == ("[]", "False")
    assert any("train.output_dr" in problem for problem in problems)


def test_a_mapping_trains_to_the_bits_of_the_command_with_the_same_file(place: Path) -> None:
    with nothing_changed():
        run = bigft.train(CONFIG, {"report.progress": "none"}, nproc=1)
    assert (run.status, run.why, run.exit_code) == ("finished", "", 0)
    assert run.output_dir == place / "out"
    assert run.metrics == json.loads(Path("out/all_results.json").read_text())
    words = ["train.max_steps=3", "train.per_device_train_batch_size=1"]
    assert command(["train", "config.yaml", *words, "train.output_dir=told", "--nproc", "1"]) == 0
    assert weights("out") == weights("told")


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_a_second_run_of_one_process_has_the_bits_of_the_first(place: Path, stage: int) -> None:
    torch.manual_seed(stage)
    for output in ("first", "second"):
        over = {"parallel": {"zero_stage": stage}, "train.output_dir": output}
        with nothing_changed():
            assert bigft.train(CONFIG, over, nproc=1).status == "finished"
        torch.rand(7)
    assert weights("first") == weights("second")


def test_deterministic_mode_and_a_stricter_umask_end_with_the_run(place: Path) -> None:
    before = os.umask(0)
    try:
        with nothing_changed():
            over = {"train": {"full_determinism": True, "max_steps": 1}}
            bigft.train("config.yaml", over, nproc=1)
    finally:
        os.umask(before)
    assert not any(path.stat().st_mode & 0o002 for path in Path("out").rglob("*.*"))


def test_a_file_of_which_keys_are_overridden_trains_in_another_thread(place: Path) -> None:
    found: list[bigft.Outcome] = []

    def train() -> None:
        found.append(bigft.train("config.yaml", {"train.max_steps": 1}, nproc=1))

    thread = threading.Thread(target=train)
    with nothing_changed():
        thread.start()
        thread.join()
    (run,) = found
    assert (run.status, run.metrics["step"]) == ("finished", 1)


def test_threads_train_one_after_another(place: Path) -> None:
    def train(output: str) -> None:
        bigft.train(CONFIG, {"train.output_dir": output}, nproc=1)

    threads = [threading.Thread(target=train, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert weights("one") == weights("two")


@pytest.mark.distributed
@pytest.mark.parametrize("in_thread", [False, True], ids=["main thread", "another thread"])
def test_two_ranks_are_processes_of_their_own(place: Path, in_thread: bool) -> None:
    found: list[bigft.Outcome] = []

    def train() -> None:
        found.append(bigft.train(CONFIG, {"train.run_name": "a: 'b', #c\n"}, nproc=2))

    with nothing_changed():
        if in_thread:
            thread = threading.Thread(target=train)
            thread.start()
            thread.join()
        else:
            train()
    (run,) = found
    assert (run.status, run.exit_code, run.metrics["step"]) == ("finished", 0, 3)
    about = RunDirectory("out").read()
    assert (about["world_size"], about["run_name"]) == (2, "a: 'b', #c\n")


@pytest.mark.distributed
def test_a_rank_that_fails_is_named(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    failpoints.arm("")  # not here, in the ranks
    monkeypatch.setenv(failpoints.VARIABLE, "train.step=raise@2#1")
    with nothing_changed():
        run = bigft.train(CONFIG, nproc=2)
    assert (run.status, run.exit_code, run.metrics) == ("resumable", 1, {})
    assert run.why.startswith("rank 1 ended first, by exit code 1; its log: ")


@pytest.mark.parametrize(
    ("over", "message"),
    [
        ({"optim": {"lerning_rate": 1e-4}}, "bigft.train: optim.lerning_rate=0.0001: unknown key"),
        ({"optim.learning_rate": -1}, "bigft.train: optim.learning_rate=-1: found -1"),
        ({"train.output_dir": {1}}, "bigft.train: train.output_dir: found {1} of type set; give"),
        ({"optim.class_weights": {"B-PRE": 2.0}}, "bigft.train: optim.class_weights={B-PRE: 2.0}:"),
        ({"data.train_file": "gone.jsonl"}, "gone.jsonl: no such file"),
    ],
)
def test_bad_input_names_the_key(place: Path, over: dict[str, Any], message: str) -> None:
    with nothing_changed(), pytest.raises(bigft.BadInput) as refused:
        bigft.train(CONFIG, over, nproc=1)
    assert str(refused.value).startswith(message)
    assert not Path("out").exists()


@pytest.mark.parametrize("count", [0, -1, True, "2", 1.0])
def test_what_is_no_count_is_refused(trained: Path, here: Path, count: Any) -> None:
    given = {
        "bigft.train: nproc": lambda: bigft.train(CONFIG, nproc=count),
        "bigft.predict: batch_size": lambda: bigft.predict(trained, "a", batch_size=count),
        "bigft.evaluate: batch_size": lambda: bigft.evaluate(trained, batch_size=count),
    }
    for name, call in given.items():
        with pytest.raises(bigft.BadInput) as refused:
            call()
        assert str(refused.value) == f"{name}: found {count!r}; give a whole number, 1 or more"


@pytest.mark.parametrize("stage", [0, 3])
def test_a_run_that_fails_says_why_and_the_next_one_is_as_good_as_the_first(
    place: Path, failing: None, capsys: pytest.CaptureFixture[str], stage: int
) -> None:
    over = {"parallel.zero_stage": stage}
    with nothing_changed():
        run = bigft.train(CONFIG, over, nproc=1)
    assert (run.status, run.exit_code, run.metrics) == ("failed", 1, {})
    assert run.why == "RuntimeError: failpoint train.step"
    assert "Traceback" in capsys.readouterr().err
    assert RunDirectory("out").read()["why"] == run.why
    failpoints.arm("")
    for output in ("after", "again"):
        with nothing_changed():
            bigft.train(CONFIG, {**over, "train.output_dir": output}, nproc=1)
    assert weights("after") == weights("again")


def test_ctrl_c_is_raised_and_recorded(place: Path) -> None:
    failpoints.arm("train.step=interrupt@2")
    try:
        with nothing_changed(), pytest.raises(KeyboardInterrupt):
            bigft.train(CONFIG, nproc=1)
    finally:
        failpoints.arm("")
    assert RunDirectory("out").read()["why"] == "Ctrl-C"
    assert not Path("out/LOCK").exists()


def test_a_signal_saves_and_stops_the_run_and_not_the_process(place: Path) -> None:
    def stop() -> None:
        wait_until(lambda: any(read_metrics(Path("out/metrics.jsonl"))))
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=stop)
    endless = {"max_steps": 1_000_000, "save_strategy": "no"}
    before = signal.signal(signal.SIGTERM, lambda number, frame: None)
    try:
        with nothing_changed():
            thread.start()
            run = bigft.train(CONFIG, {"train": endless}, nproc=1)
            thread.join()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert (run.status, run.why, run.exit_code) == ("resumable", "stopped by SIGTERM", 75)
    assert RunDirectory("out").latest_checkpoint is not None


def test_a_run_that_was_stopped_goes_on_and_is_then_left_as_it_is(place: Path) -> None:
    with nothing_changed():
        stopped = bigft.train(CONFIG, {"train.max_time": "00:00:01"}, nproc=1)
    assert (stopped.status, stopped.exit_code) == ("resumable", 75)
    assert "train.max_time" in stopped.why
    resume = {"train.resume_from_checkpoint": True}
    assert bigft.train(CONFIG, resume, nproc=1).status == "finished"
    before = read_metrics(Path("out/metrics.jsonl"))
    again = bigft.train(CONFIG, resume, nproc=1)
    assert (again.status, again.metrics["step"]) == ("finished", 3)
    assert read_metrics(Path("out/metrics.jsonl")) == before


def test_a_process_group_of_the_callers_is_not_touched(place: Path) -> None:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        with nothing_changed(), pytest.raises(bigft.BadInput, match="has a process group"):
            bigft.train(CONFIG, nproc=1)
    finally:
        dist.destroy_process_group()


def test_scores_are_those_that_the_command_prints(
    trained: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    over = {"data.test_file": trained.parent / "train.jsonl"}
    named = {"output_dir": trained}
    for run in (trained, str(trained), trained / "config.yaml", {**CONFIG, "train": named}):
        with nothing_changed():
            found = bigft.evaluate(run, overrides=over, batch_size=2)
    word = f"data.test_file={over['data.test_file']}"
    assert command(["evaluate", str(trained), word, "--batch-size", "2", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert list(found) == ["test"]
    assert {k: v for k, v in found["test"].items() if k not in TIMES} == {
        k: v for k, v in printed.items() if k not in TIMES
    }


def test_every_split_that_is_asked_for_is_scored(trained: Path, here: Path) -> None:
    found = bigft.evaluate(trained, ["train", "test"])
    assert {split: scores["samples"] for split, scores in found.items()} == {"train": 2, "test": 1}


@pytest.mark.parametrize(
    ("splits", "over", "message"),
    [
        ("tset", {}, "bigft.evaluate: splits: no split 'tset'; choose among train, validation"),
        ("validation", {}, "data.validation_file: the run's config names none"),
        ("test", {"optim.lr": 1}, "optim.lr=1: not what `bigft evaluate` can change"),
        ("test", {"data.tset_file": "a"}, "bigft.evaluate: data.tset_file=a: unknown key"),
    ],
)
def test_scores_that_cannot_be_had_are_refused(
    trained: Path, here: Path, splits: str, over: dict[str, Any], message: str
) -> None:
    with nothing_changed(), pytest.raises(bigft.BadInput) as refused:
        bigft.evaluate(trained, splits, over)
    assert str(refused.value).startswith(message)


def test_answers_are_those_that_the_command_prints(
    trained: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with nothing_changed():
        found = bigft.predict(trained, ["ann in ulm", {"text": "zoe"}])
    assert command(["predict", str(trained), "--text", "ann in ulm", "--text", "zoe"]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [answer["text"] for answer in found] == ["ann in ulm", "zoe"]
    assert_alike(found, printed)
    assert_alike(bigft.predict(trained, "ann in ulm"), found[:1])


def assert_alike(one: Any, other: Any) -> None:
    """Equal, but for the rounding of scores: some CPUs sum by where the numbers lie in memory."""
    if isinstance(one, float):
        assert one == pytest.approx(other, rel=1e-5)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_alike(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for own, their in zip(one, other, strict=True):
            assert_alike(own, their)
    else:
        assert one == other


@pytest.mark.parametrize(
    ("texts", "over", "message"),
    [
        (["a", {"words": "b"}], {}, "texts:2: no string `text` in the object"),
        (["\ud800"], {}, "texts: '\\ud800' is not UTF-8"),
        (["a", 5, ["b"]], {}, "texts:2: found 5; give a text, or a mapping\ntexts:3: found ['b']"),
        (["a"], {"data.format": "text"}, "data.format=text: not what `bigft predict` can change"),
    ],
)
def test_texts_that_cannot_be_used_are_refused(
    trained: Path, here: Path, texts: list[Any], over: dict[str, Any], message: str
) -> None:
    with nothing_changed(), pytest.raises(bigft.BadInput) as refused:
        bigft.predict(trained, texts, over)
    assert str(refused.value).startswith(message)


def test_the_documented_example_runs_in_a_process_that_is_started_once(place: Path) -> None:
    page = (REPOSITORY / "docs/python.md").read_text(encoding="utf-8")
    example = re.search(r"^```python\n(.*?)^```", page, flags=re.M | re.S)
    assert example
    Path("example.py").write_text("print('started')\n" + example[1])
    fresh = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    fresh.pop("BIGFT_SETTLED")
    done = subprocess.run(
        [sys.executable, "example.py"], env=fresh, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert lines.count("started") == 1
    assert any(line.startswith("finished  0 /") for line in lines)
    assert lines[-1].startswith("[")
