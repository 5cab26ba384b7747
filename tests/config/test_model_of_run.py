"""A run directory in the place of a model means the model that the run leaves."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bigft.config import LoadedConfig, load_config, resolved_yaml
from bigft.config.fields import wherever_read
from bigft.runtime.run_directory import RunDirectory

Load = Callable[..., LoadedConfig]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "runs" / "first").mkdir(parents=True)
    directory = RunDirectory(tmp_path / "runs" / "first")
    directory.run_file.write_text("{}")
    return directory.path


def test_the_directory_of_a_run_means_its_model(run: Path, load: Load) -> None:
    model = load(
        "model.model_name_or_path=runs/first", "model.tokenizer_name=runs/first"
    ).config.model
    assert model.model_name_or_path == "runs/first/model"
    assert Path(model.model_name_or_path).absolute() == RunDirectory(run).model
    assert model.tokenizer_name == "runs/first/model"


def test_it_is_recorded_as_it_means_the_same_everywhere_and_loads_again(
    run: Path, load: Load, tmp_path: Path
) -> None:
    config = load("model.model_name_or_path=runs/first").config
    RunDirectory(run).model.mkdir()
    recorded = resolved_yaml(config, wherever_read)
    (tmp_path / "recorded.yaml").write_text(recorded)
    again = load_config(str(tmp_path / "recorded.yaml")).config.model
    assert again.model_name_or_path == str(run / "model")


def test_everything_else_is_the_name_of_a_model(run: Path, load: Load) -> None:
    names = ["runs/first/model", "runs", "bert-base-uncased", "some/where"]
    for name in names:
        assert load(f"model.model_name_or_path={name}").config.model.model_name_or_path == name
    (run / "config.json").write_text("{}")  # a model that somebody put beside a run.json
    assert (
        load("model.model_name_or_path=runs/first").config.model.model_name_or_path == "runs/first"
    )
