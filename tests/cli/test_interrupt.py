"""Ctrl-C while Python loads what a verb needs: exit code 130, and nothing on stderr."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[2]
# Ctrl-C arrives just when the module that is named is looked for.
AT_IMPORT = """\
import signal, sys

class Finder:
    def find_spec(self, name, path, target=None):
        if name == sys.argv[1]:
            signal.raise_signal(signal.SIGINT)

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.meta_path.insert(0, Finder())
from bigft.cli import main
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.parametrize(
    ("module", "words"),
    [
        ("pydantic", ["check", "config.yaml"]),
        ("bigft.config.errors", ["config", "config.yaml"]),
        ("bigft.cli.env", ["env"]),
        ("bigft.runtime.run_directory", ["predict", "out"]),
        ("bigft.config", ["no-such-verb"]),
    ],
)
def test_ctrl_c_while_a_module_is_imported_ends_a_verb_without_a_traceback(
    module: str, words: list[str]
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", AT_IMPORT, module, *words],
        cwd=REPOSITORY,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (128 + signal.SIGINT, "", "")
