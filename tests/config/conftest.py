"""A smallest config that loads, and what becomes of changes to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bigft.config import BadInput, LoadedConfig, load_config

SMALLEST = """\
task: token-classification
model: {model_name_or_path: m}
data: {train_file: train.conll, validation_file: dev.conll}
train: {output_dir: out}
"""


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., LoadedConfig]:
    """load(*overrides, text=SMALLEST): the text as config.yaml with overrides put over it."""
    monkeypatch.chdir(tmp_path)

    def call(*overrides: str, text: str | bytes = SMALLEST) -> LoadedConfig:
        data = text.encode() if isinstance(text, str) else text
        Path("config.yaml").write_bytes(data)
        return load_config("config.yaml", overrides)

    return call


@pytest.fixture
def refused(load: Callable[..., LoadedConfig]) -> Callable[..., list[str]]:
    """The same where it must be refused: one line per problem."""

    def call(*overrides: str, text: str | bytes = SMALLEST) -> list[str]:
        with pytest.raises(BadInput) as caught:
            load(*overrides, text=text)
        return [str(problem) for problem in caught.value.problems]

    return call
