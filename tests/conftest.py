"""What every test may ask for."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bigft.runtime import environment, launcher
from bigft.runtime.signals import STOP_SIGNALS

# Several workers share the cores: threads wait for each other as in a run. Before torch is loaded.
if environment.SPINS.keys() <= environment.process_settings(os.environ).keys():
    os.environ.update(environment.SPINS)
REPOSITORY = Path(__file__).resolve().parents[1]
MINILM = REPOSITORY / "models" / "all-MiniLM-L6-v2"
# A shell that starts tests in the background has Ctrl-C ignored by them and by what they start.
signal.signal(signal.SIGINT, signal.default_int_handler)
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


@pytest.fixture
def real_data() -> Callable[[str], Path]:
    """`real_data("wnut17")`: the folder of that data set, or a skip that says what is missing."""
    root = Path(os.environ.get("BIGFT_TEST_DATA", REPOSITORY.parent / "shared" / "data"))

    def locate(name: str) -> Path:
        folder = root / name
        if not folder.is_dir():
            pytest.skip(f"real data: no folder {name} under BIGFT_TEST_DATA ({root})")
        return folder

    return locate


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The pretrained MiniLM of the quickstart, or a skip that says how to get it."""
    if not (MINILM / "model.safetensors").is_file():
        pytest.skip(f"no {MINILM}: run `python examples/fetch_minilm.py`")
    return MINILM


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT of two narrow layers for the labels of persons and places."""
    from tiny import save_tiny

    labels = dict(enumerate(["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]))  # in the data's order
    return save_tiny(tmp_path_factory.mktemp("tiny") / "model", id2label=labels)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current directory, empty; a verb that is called in it stays in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("BIGFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    for name in (*environment.MALLOC_SETTINGS, environment.SETTLED):
        monkeypatch.setenv(name, "1")  # or `train` would start this process anew
    for name in (*launcher.LAUNCHER_VARIABLES, "SLURM_STEP_ID"):
        monkeypatch.setenv(name, "")  # so that one that the test sets goes, too
        monkeypatch.delenv(name)
    handlers = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    yield tmp_path
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def place(tiny_model: Path, here: Path) -> Path:
    """The current directory: config.yaml, train.jsonl, test.jsonl and a tiny BERT in model."""
    Path("config.yaml").write_text(CONFIG)
    for name, rows in {"train.jsonl": TRAIN, "test.jsonl": TEST}.items():
        Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("model").symlink_to(tiny_model)
    return here
