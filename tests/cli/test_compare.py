"""`bigft compare`: real runs side by side, and runs that are not finished beside them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from distributed.conftest import tiny_bert, write_data

import bigft
from bigft.api.compare import compare
from bigft.cli import main
from bigft.config.errors import BadInput
from bigft.runtime.events import MetricsFile, read_metrics
from bigft.runtime.run_directory import RunDirectory

__all__ = ["tiny_bert", "write_data"]

RUNS = {
    "pretrained": {},
    "faster": {"optim.learning_rate": 0.01},
    "scratch": {"model.from_scratch": True, "train.seed": 7},
}


@pytest.fixture(scope="module")
def place(
    tiny_bert: Path, write_data: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of three finished runs, by the names of RUNS."""
    folder = tmp_path_factory.mktemp("compared")
    data = str(write_data([3, 5, 8, 2]))
    config: dict[str, Any] = {
        "task": {"name": "token-classification"},
        "model": {"model_name_or_path": str(tiny_bert)},
        "data": {"train_file": data, "validation_file": data, "test_file": data},
        "optim": {"learning_rate": 1e-3},
        "train": {"max_steps": 4, "logging_steps": 2, "save_strategy": "no"},
    }
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("BIGFT_CACHE", str(folder / "cache"))
        environment.setenv("DS_ACCELERATOR", "cpu")
        for name, overrides in RUNS.items():
            own = {"train.output_dir": str(folder / name), **overrides}
            assert bigft.train(config, own, nproc=1).status == "finished"
    return folder


@pytest.fixture
def seen(place: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """`seen("pretrained", ...)`: what `bigft compare --json` prints."""

    def runs(*names: str) -> Any:
        assert main(["compare", *(str(place / name) for name in names), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return runs


@pytest.fixture
def copied(place: Path, tmp_path: Path) -> RunDirectory:
    """A finished run, to be changed."""
    shutil.copytree(place / "pretrained", tmp_path / "copy")
    return RunDirectory(tmp_path / "copy")


def results(run: Path) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((run / "all_results.json").read_text())
    return read


@pytest.mark.distributed
def test_of_the_configs_only_what_differs_is_shown(place: Path, seen: Callable[..., Any]) -> None:
    one, other = (str(place / name) for name in ("pretrained", "faster"))
    assert seen("pretrained", "faster")["config"] == {
        "optim.learning_rate": {one: 0.001, other: 0.01}
    }
    assert list(seen("pretrained", "scratch")["config"]) == ["model.from_scratch", "train.seed"]


@pytest.mark.distributed
def test_scores_are_those_of_the_results_and_the_best_is_marked_by_its_direction(
    place: Path, seen: Callable[..., Any]
) -> None:
    found = seen(*RUNS)
    of_runs = {str(place / name): results(place / name) for name in RUNS}
    first = of_runs[str(place / "pretrained")]
    for name in ("eval_loss", "test_loss", "test_accuracy", "eval_f1"):
        expected = {path: one[name] for path, one in of_runs.items()}
        score = found["scores"][name]
        assert score["values"] == expected
        best = min(expected.values()) if name.endswith("loss") else max(expected.values())
        winners = [path for path, value in expected.items() if value == best]
        assert score["best"] == (winners if len(set(expected.values())) > 1 else [])
        assert score["difference"] == {
            path: value - first[name] for path, value in list(expected.items())[1:]
        }
    assert found["scores"]["eval_loss"]["best"]  # or nothing was shown
    assert not {"eval_runtime", "test_samples", "eval_samples_per_second"} & {*found["scores"]}


@pytest.mark.distributed
def test_training_is_told_by_loss_speed_time_and_memory(
    place: Path, seen: Callable[..., Any]
) -> None:
    found, path = seen("pretrained"), str(place / "pretrained")
    told, events = results(place / "pretrained"), read_metrics(Path(path, "metrics.jsonl"))
    training = {name: values[path] for name, values in found["training"].items()}
    began = next(event["time"] for event in events if event["event"] == "start")
    assert training == {
        "train_loss": told["train_loss"],
        "last_loss": [event for event in events if event["event"] == "log"][-1]["loss"],
        "tokens_per_second": told["train_tokens_per_second"],
        "seconds": pytest.approx(events[-1]["time"] - began),
        "peak_memory_mib": told["train_peak_memory_mib"],
    }
    assert 100 < training["peak_memory_mib"] < 100_000
    (run,) = found["runs"]
    assert (run["status"], run["step"], run["total_steps"], run["measured_at"]) == (
        *("finished", 4, 4, 4),
    )
    assert found["config"] == {}  # of one run nothing differs
    assert all(score["best"] == [] for score in found["scores"].values())


@pytest.mark.distributed
def test_what_transfer_brought_is_the_difference_of_the_means(
    place: Path, seen: Callable[..., Any]
) -> None:
    assert seen("pretrained", "faster")["transfer"] is None
    transfer = seen(*RUNS)["transfer"]
    assert transfer["from_scratch"] == [str(place / "scratch")]
    assert transfer["pretrained"] == [str(place / name) for name in ("pretrained", "faster")]
    assert transfer["differs_too"] == ["optim.learning_rate"]  # another seed is no matter
    assert seen("scratch", "pretrained")["transfer"]["differs_too"] == []
    pretrained = fmean(results(place / name)["test_loss"] for name in ("pretrained", "faster"))
    scratch = results(place / "scratch")["test_loss"]
    assert transfer["scores"]["test_loss"] == {
        "from_scratch": scratch,
        "pretrained": pretrained,
        "difference": pretrained - scratch,
    }


@pytest.mark.distributed
def test_a_run_that_goes_on_is_shown_by_its_newest_evaluation(
    place: Path, copied: RunDirectory
) -> None:
    """Its all_results.json is of an earlier end."""
    copied.update(status="resumable", why="stopped by SIGTERM")
    metrics = MetricsFile(copied.metrics_file)
    time = read_metrics(copied.metrics_file)[-1]["time"] + 1000
    metrics({"event": "start", "time": time, "total_steps": 8})
    metrics({"event": "log", "time": time + 5, "step": 6, "loss": 1.0, "num_targets": 10,
             "num_tokens": 40, "tokens_per_second": 10.0})  # fmt: skip
    metrics({"event": "eval", "time": time + 7, "split": "validation", "step": 6,
             "eval_loss": 0.25, "eval_f1": None})  # fmt: skip
    found = compare([RunDirectory(place / "pretrained"), copied])
    path = str(copied.path)
    run = found["runs"][1]
    assert (run["status"], run["why"]) == ("resumable", "stopped by SIGTERM")
    assert (run["step"], run["total_steps"], run["measured_at"]) == (6, 8, 6)
    assert found["scores"]["eval_loss"]["values"][path] == 0.25
    assert found["scores"]["eval_loss"]["best"] == [path]
    f1 = found["scores"]["eval_f1"]
    assert (f1["best"], f1["difference"]) == ([], {})  # NaN is never the best
    assert f1["values"][path] != f1["values"][path]
    logs = [one for one in read_metrics(copied.metrics_file) if one["event"] == "log"]
    assert len(logs) == 3
    targets = sum(log["num_targets"] for log in logs)
    mean = sum(log["loss"] * log["num_targets"] for log in logs) / targets
    training = found["training"]
    assert training["train_loss"][path] == pytest.approx(mean)
    assert training["last_loss"][path] == 1.0
    # What lies between its two starts is no time of the run.
    assert training["seconds"][path] == pytest.approx(
        training["seconds"][str(place / "pretrained")] + 7
    )
    assert path not in training["peak_memory_mib"]


@pytest.mark.distributed
def test_a_run_that_failed_before_it_trained_stands_beside_the_others(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = RunDirectory(tmp_path / "failed")
    failed.claim(resume=False)
    failed.update(status="failed", why="CUDA out of memory", exit_code=1)
    failed.release()
    assert main(["compare", str(place / "pretrained"), str(failed.path)]) == 0
    printed = capsys.readouterr().out
    table = {line[:18].strip(): line.split() for line in printed.splitlines()}
    assert printed.splitlines()[0].split() == ["pretrained", "failed"]
    assert table["status"][1:] == ["finished", "failed"]
    assert table["why"][1:] == ["-", "CUDA", "out", "of", "memory"]
    assert table["step"][1:] == ["4/4", "0/?"]
    assert table["test_loss"][2:] == ["-"]
    assert f"note: {failed.path} has no config.yaml" in printed
    assert main(["compare", str(failed.path)]) == 0
    assert "status  failed" in capsys.readouterr().out


@pytest.mark.distributed
def test_the_table_shows_names_marks_and_differences(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", *(str(place / name) for name in RUNS)]) == 0
    printed = capsys.readouterr().out
    lines = printed.splitlines()
    assert lines[0].split() == list(RUNS)
    (rate,) = (line for line in lines if line.strip().startswith("optim.learning_rate"))
    assert rate.split()[1:] == ["0.001", "0.01", "0.001"]
    losses = {name: results(place / name)["test_loss"] for name in RUNS}
    shown = next(line for line in lines if line.strip().startswith("test_loss"))
    best = min(losses, key=losses.__getitem__)
    for name, loss in losses.items():
        assert f"{loss:.4f}" + ("*" if name == best else "") in shown
    assert f"({losses['faster'] - losses['pretrained']:+.4f})" in shown
    assert "what transfer brought" in printed
    assert "from scratch" in printed
    assert "pretrained, mean of 2" in printed
    assert "note: not transfer alone, they differ in optim.learning_rate too" in printed


@pytest.mark.distributed
def test_a_comparison_loads_no_torch(place: Path) -> None:
    code = "import sys; from bigft.cli import main; main(sys.argv[1:])\n"
    code += "assert not {'torch', 'transformers', 'pyarrow'} & set(sys.modules)"
    words = ["compare", *(str(place / name) for name in RUNS)]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.distributed
def test_sets_of_different_sizes_are_noted(place: Path, copied: RunDirectory) -> None:
    copied.update(status="running")
    copied.write_results({"test_samples": 3})
    copied.update(status="finished")
    found = compare([RunDirectory(place / "pretrained"), copied])
    (note,) = found["notes"]
    assert note == (
        f"the scores are of test sets of different sizes: 4 ({place}/pretrained), 3 ({copied.path})"
    )


@pytest.mark.distributed
def test_the_metric_that_judges_a_run_is_judged_as_its_config_says(copied: RunDirectory) -> None:
    config = copied.config_file.read_text()
    config = config.replace("metric_for_best_model: null", "metric_for_best_model: eval_loss")
    config = config.replace("greater_is_better: null", "greater_is_better: true")
    copied.config_file.write_text(config)
    lower = RunDirectory(copied.path.with_name("lower"))
    shutil.copytree(copied.path, lower.path)
    lower.write_results({"eval_loss": 0.1, "eval_f1": 0.1, "test_perplexity": 2.0})
    copied.write_results({"eval_loss": 0.2, "eval_f1": 0.2, "test_perplexity": 3.0})
    best = {name: score["best"] for name, score in compare([lower, copied])["scores"].items()}
    assert best["eval_loss"] == best["eval_f1"] == [str(copied.path)]
    assert best["test_perplexity"] == [str(lower.path)]


@pytest.mark.distributed
def test_what_cannot_be_compared_is_refused_all_at_once(
    place: Path, copied: RunDirectory, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(place / "pretrained")
    (copied.path / "all_results.json").write_text("{")
    assert main(["compare", run, str(tmp_path / "nothing"), str(copied.path), run]) == 2
    assert capsys.readouterr().err.splitlines() == [
        f"{tmp_path}/nothing: no run directory: cannot read run.json (No such file or directory); "
        "give the train.output_dir of a run",
        f"{copied.path}/all_results.json: not valid JSON (Expecting property name enclosed in "
        "double quotes: line 1 column 2 (char 1))",
        f"{run}: given twice; give each run once",
    ]


@pytest.mark.distributed
def test_runs_of_different_tasks_are_refused(place: Path, copied: RunDirectory) -> None:
    config = copied.config_file.read_text()
    copied.config_file.write_text(config.replace("name: token-classification", "name: causal-lm"))
    what = "a run of causal-lm, but .*/pretrained is one of token-classification"
    with pytest.raises(BadInput, match=f"{copied.path}: {what}; compare runs of one task"):
        compare([RunDirectory(place / "pretrained"), copied])
