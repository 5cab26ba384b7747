"""What every test may ask for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
MINILM = REPOSITORY / "models" / "all-MiniLM-L6-v2"


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
