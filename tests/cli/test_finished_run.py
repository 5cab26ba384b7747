"""A real run that has finished: asked again, it is left as it is; and it can be used from any
directory, although its config named everything by relative paths."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from distributed.conftest import tiny_bert, write_data

import bigft
from bigft.cli import main
from bigft.runtime.events import read_metrics

__all__ = ["tiny_bert", "write_data"]
pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def trained(
    tiny_bert: Path,
    write_data: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """The folder in which `bigft train config.yaml` ran: model, data.jsonl and run. No evaluation
    is better than the first one, so that the run has stopped early."""
    folder = tmp_path_factory.mktemp("project")
    shutil.copytree(tiny_bert, folder / "model")
    shutil.copy(write_data([3, 5, 8, 2]), folder / "data.jsonl")
    config: dict[str, Any] = {
        "task": {"name": "token-classification"},
        "model": {"model_name_or_path": "model"},
        "data": {"train_file": "data.jsonl", "validation_file": ["./data.jsonl"]},
        "adapt": {"method": "lora", "r": 2},
        "optim": {"learning_rate": 0.0},
        "train": {
            "output_dir": str(folder / "run"),
            "max_steps": 9,
            "eval_strategy": "steps",
            "eval_steps": 1,
            "save_strategy": "best",
            "load_best_model_at_end": True,
            "metric_for_best_model": "loss",
            "early_stopping_patience": 2,
        },
    }
    (folder / "config.yaml").write_text(json.dumps(config))
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("BIGFT_CACHE", str(folder / "cache"))
        environment.setenv("DS_ACCELERATOR", "cpu")
        environment.chdir(folder)
        assert bigft.train("config.yaml", nproc=1).status == "finished"
    assert read_metrics(folder / "run" / "metrics.jsonl")[-1]["step"] == 3
    return folder


def everything_in(run: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["train.logging_steps=1", "report.progress=none", "train.save_total_limit=1"],
        ["data.train_file=../project0/data.jsonl", "model.model_name_or_path=./model/"],
    ],
    ids=["as it was", "told otherwise", "under other names"],
)
def test_a_finished_run_that_is_called_again_is_left_as_it_is(
    trained: Path,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
) -> None:
    monkeypatch.chdir(trained)
    words = [word.replace("project0", trained.name) for word in words]
    again = ["config.yaml", "train.output_dir=run", "train.resume_from_checkpoint=true", *words]
    before = everything_in(trained / "run")
    assert main(["train", *again, "--nproc", "2"]) == 0
    assert capsys.readouterr().out == "run is finished: nothing is left to train\n"
    assert everything_in(trained / "run") == before
    assert main(["job", "begin", *again]) == 0
    assert capsys.readouterr().out == "finished\nrun\n"


@pytest.mark.parametrize("word", ["train.max_steps=10", "train.early_stopping_patience=3"])
def test_a_finished_run_that_is_asked_for_more_is_not_finished(
    trained: Path, here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    word: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(trained)
    assert main(["job", "begin", "config.yaml", word]) == 0
    assert not capsys.readouterr().out.startswith("finished")


def test_a_run_is_evaluated_from_any_directory(
    trained: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", str(trained / "run"), "--split", "validation", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    results = json.loads((trained / "run" / "all_results.json").read_text())
    assert scores["loss"] == pytest.approx(results["eval_loss"], rel=1e-5)


def test_plain_peft_finds_the_base_of_a_runs_adapter_from_any_directory(
    trained: Path, here: Path
) -> None:
    from peft import AutoPeftModelForTokenClassification

    adapter = trained / "run" / "model"
    labels = json.loads((adapter / "config.json").read_text())["id2label"]
    model = AutoPeftModelForTokenClassification.from_pretrained(
        str(adapter),
        num_labels=len(labels),
        ignore_mismatched_sizes=True,  # of the new head
    )
    assert model.peft_config["default"].base_model_name_or_path == str(trained / "model")
