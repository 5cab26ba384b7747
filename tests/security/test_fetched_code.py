"""The package `kernels` fetches compiled code from a hub: bigft lets no library use it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers.utils.import_utils import KERNELS_MIN_VERSION

REPOSITORY = Path(__file__).resolve().parents[2]
STAND_IN = """
from pathlib import Path

def get_kernel(*args, **kwargs):
    Path("canary").touch()
    raise OSError("no network")

def __getattr__(name):
    return lambda *args, **kwargs: lambda value: value
"""
STARTED = "from bigft.cli import main; main(['--version'])"
LIBRARIES = {
    "transformers": "from transformers.utils import is_kernels_available as there; print(there())",
    "attention": """
from transformers.utils.import_utils import is_flash_attn_kernel_fallback_available
is_flash_attn_kernel_fallback_available(2)
""",
    # Looked for at import on CPUs with AVX512_BF16; here on every one.
    "bitsandbytes": """
import bitsandbytes.functional
bitsandbytes.functional.has_avx512bf16 = lambda: True
import importlib, bitsandbytes.backends.cpu.ops as ops
from unittest import mock
with mock.patch("bitsandbytes._ops.register_kernel", lambda *args: lambda function: function):
    importlib.reload(ops)
""",
}


def run(library: str, start: str, place: Path) -> str:
    site = place / "site"
    metadata = site / f"kernels-{KERNELS_MIN_VERSION}.dist-info"
    metadata.mkdir(parents=True)
    about = f"Metadata-Version: 2.1\nName: kernels\nVersion: {KERNELS_MIN_VERSION}\n"
    (metadata / "METADATA").write_text(about)
    (site / "kernels.py").write_text(STAND_IN)
    path = os.pathsep.join([str(site), str(REPOSITORY)])
    environ = {**os.environ, "PYTHONPATH": path, "DS_ACCELERATOR": "cpu"}
    command = [sys.executable, "-c", f"{start}\n{LIBRARIES[library]}"]
    done = subprocess.run(command, cwd=place, env=environ, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("library", LIBRARIES)
def test_no_library_fetches_code(library: str, tmp_path: Path) -> None:
    said = run(library, STARTED, tmp_path)
    assert not (tmp_path / "canary").exists()
    assert "True" not in said


@pytest.mark.parametrize("library", LIBRARIES)
def test_it_would_have(library: str, tmp_path: Path) -> None:
    said = run(library, "", tmp_path)
    assert (tmp_path / "canary").exists() or "True" in said
