"""A package that does not fit the others is named, by every verb that needs a model."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
# What is seen in the wild: an operator of another torch, a shared library that is not there.
BROKEN = {
    "torchvision": "RuntimeError('operator torchvision::nms does not exist')",
    "scipy": "ImportError('libopenblas.so.0: cannot open shared object file')",
}
SCRIPT = """
from bigft.cli import main
main(["env"])
raise SystemExit(main(["check", "config.yaml"]))
"""


@pytest.mark.parametrize("package", BROKEN)
def test_a_package_that_stops_every_model_is_named_with_the_way_out(
    package: str, place: Path
) -> None:
    there = place / "site"
    (there / package).mkdir(parents=True)
    (there / package / "__init__.py").write_text(f"raise {BROKEN[package]}\n")
    metadata = there / f"{package}-0.20.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.20.0\n")
    (metadata / "top_level.txt").write_text(f"{package}\n")
    path = os.pathsep.join([str(there), str(REPOSITORY)])
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=600,
    )
    answer = f"environment: {package} 0.20.0: cannot be imported beside torch "
    assert done.returncode == 2, done.stderr
    assert f"{answer}" in done.stdout  # of `bigft env`
    (line,) = [line for line in done.stderr.splitlines() if answer in line]
    assert BROKEN[package].partition("'")[2].rstrip("')") in line
    assert line.endswith(f"(pip uninstall {package})")
