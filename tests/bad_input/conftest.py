"""A run that is accepted, for tests to spoil, and the answer to it when it is spoilt."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tiny import save_tiny

from bigft.cli import main
from bigft.runtime import launcher
from bigft.runtime.signals import STOP_SIGNALS

CONFIG = """\
task: token-classification
model:
  model_name_or_path: model
data:
  train_file: train.jsonl
  test_file: test.jsonl
train:
  output_dir: out
"""
TRAIN = [
    {"tokens": ["ann", "met", "bob"], "ner_tags": ["B-PER", "O", "B-PER"]},
    {"tokens": ["in", "ulm"], "ner_tags": ["O", "B-LOC"]},
]
TEST = [{"tokens": ["zoe", "left"], "ner_tags": ["B-PER", "O"]}]


def jsonl(rows: list[dict[str, object]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("bad_input") / "model")


@pytest.fixture
def place(tiny_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory: config.yaml, train.jsonl, test.jsonl and a tiny BERT in model."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BIGFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    for name in (*launcher.MALLOC_SETTINGS, launcher.SETTLED):
        monkeypatch.setenv(name, "1")  # or `train` would start this process anew
    for name in (*launcher.LAUNCHER_VARIABLES, "SLURM_STEP_ID"):
        monkeypatch.delenv(name, raising=False)
    Path("config.yaml").write_text(CONFIG)
    Path("train.jsonl").write_bytes(jsonl(TRAIN))
    Path("test.jsonl").write_bytes(jsonl(TEST))
    Path("model").symlink_to(tiny_run)
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield tmp_path
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def refused(place: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """`refused("section.key=value", ..., verb=...)`: the lines of a refusal, exit code 2.

    Without a verb both `check` and `train` are asked: they say the same, and leave no run behind.
    """

    def ask(*words: str, config: str = "config.yaml", verb: str | None = None) -> list[str]:
        answers = []
        for name in [verb] if verb else ["check", "train"]:
            before = sorted(place.iterdir())
            assert main([name, config, *words, "--nproc", "1"]) == 2
            lines = capsys.readouterr().err.splitlines()
            answers.append([line for line in lines if not line.startswith("note: ")])
            assert {path.name for path in place.iterdir()} - {p.name for p in before} <= {"cache"}
        assert all(answer == answers[0] for answer in answers)
        return answers[0]

    return ask


@pytest.fixture
def notes(place: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., list[str]]:
    """`notes("section.key=value", ...)`: what `check` remarks on a run that it accepts."""

    def ask(*words: str) -> list[str]:
        assert main(["check", "config.yaml", *words]) == 0
        lines = capsys.readouterr().out.splitlines()
        assert lines[-1] == "ok"
        return [line.removeprefix("note: ") for line in lines if line.startswith("note: ")]

    return ask
