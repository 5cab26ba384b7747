from __future__ import annotations

from pathlib import Path

import pytest
from tiny import tiny_config


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory, with the config of a model in `model`."""
    monkeypatch.chdir(tmp_path)
    tiny_config("llama").save_pretrained("model")
    return tmp_path
