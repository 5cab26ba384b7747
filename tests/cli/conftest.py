"""What tests of several verbs share."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bigft.config import load_config, resolved_yaml
from bigft.runtime.run_directory import RunDirectory


@pytest.fixture
def trained_run(place: Path) -> Path:
    """The directory of a finished run, with the tiny model as what it has learnt."""
    directory = RunDirectory("out")
    directory.claim(resume=False)
    directory.write_config(resolved_yaml(load_config("config.yaml").config))
    shutil.copytree("model", directory.model)
    directory.update(status="finished", exit_code=0)
    return directory.path
