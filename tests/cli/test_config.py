"""The command line: verbs, where overrides may stand, exit codes; and the verb `config`."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from argparse import Namespace
from contextlib import suppress
from pathlib import Path

import pytest

import bigft
import bigft.cli.config
from bigft.cli import VERBS, main
from bigft.config.errors import BadInput, Problem

REPOSITORY = Path(__file__).resolve().parents[2]
CONFIG = """\
task: token-classification
model: {model_name_or_path: m}
data: {train_file: t, validation_file: v}
train: {output_dir: out}
"""


@pytest.fixture(autouse=True)
def _config_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(CONFIG)


def test_config_prints_what_loads_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "config.yaml", "optim.learning_rate=1e-4"]) == 0
    first = capsys.readouterr().out
    assert "learning_rate: 0.0001\n" in first
    Path("again.yaml").write_text(first)
    assert main(["config", "again.yaml"]) == 0
    assert capsys.readouterr().out == first


def test_schema_is_json_and_needs_no_config(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "--schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "RunConfig"


def test_options_of_a_verb_may_stand_between_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Namespace] = []
    monkeypatch.setattr(bigft.cli.config, "run", lambda args: seen.append(args) or 7)
    assert main(["config", "config.yaml", "a.b=c", "--schema", "d.e=f"]) == 7
    assert (seen[0].config, seen[0].overrides) == ("config.yaml", ["a.b=c", "d.e=f"])


def test_overrides_alone_need_no_file(capsys: pytest.CaptureFixture[str]) -> None:
    keys = ["task=token-classification", "model.model_name_or_path=m", "data.train_file=t"]
    assert main(["config", *keys, "train.output_dir=o"]) == 0
    assert "output_dir: o\n" in capsys.readouterr().out


def test_a_file_name_may_hold_an_equals_sign(capsys: pytest.CaptureFixture[str]) -> None:
    Path("lr=1.yaml").write_text(CONFIG)
    assert main(["config", "lr=1.yaml", "train.seed=7"]) == 0
    assert "seed: 7\n" in capsys.readouterr().out


def test_notes_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["config", "config.yaml", "lr=1e-4"]) == 0
    printed = capsys.readouterr()
    assert printed.err == "note: command line: lr=1e-4: read as optim.learning_rate\n"
    assert "note" not in printed.out


def test_bad_input_is_exit_code_2_with_a_line_per_problem(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["config", "config.yaml", "train.sed=1", "train.bf16=1"]) == 2
    assert capsys.readouterr().err.splitlines() == [
        "command line: train.bf16=1: found 1; it should be true or false",
        "command line: train.sed=1: unknown key; did you mean train.seed?",
    ]


@pytest.mark.parametrize(
    ("verb", "fix"),
    [("confg", "did you mean config?"), ("xyzzy", f"choose one of {', '.join(VERBS)}")],
)
def test_an_unknown_verb_is_answered_with_the_nearest(
    capsys: pytest.CaptureFixture[str], verb: str, fix: str
) -> None:
    assert main([verb]) == 2
    assert capsys.readouterr().err == f"bigft: no verb '{verb}'; {fix}\n"


def test_an_interrupt_is_exit_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(args: Namespace) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(bigft.cli.config, "run", interrupted)
    assert main(["config", "config.yaml"]) == 130


@pytest.mark.parametrize("became", [None, RuntimeError("no"), BadInput(Problem("a", "b"))])
def test_an_interrupt_is_exit_code_130_whatever_a_library_made_of_it(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    became: Exception | None,
) -> None:
    def interrupted(args: Namespace) -> int:
        with suppress(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
        if became is not None:
            raise became
        return 0

    monkeypatch.setattr(bigft.cli.config, "run", interrupted)
    assert main(["config", "config.yaml"]) == 130
    assert capsys.readouterr().err == ""


def test_help_names_every_verb_and_version_is_the_packages(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == main(["--help"]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {verb} " in printed for verb in VERBS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"bigft {bigft.__version__}\n"


def test_python_m_bigft_is_the_same_command() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bigft", "config", "none.yaml"],
        env={"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr == "none.yaml: cannot be read: No such file or directory\n"


def test_a_run_directory_means_its_config(capsys: pytest.CaptureFixture[str]) -> None:
    run = Path("out")
    run.mkdir()
    shutil.copy("config.yaml", run)
    assert main(["config", "out"]) == 2  # a folder that is no run
    (run / "run.json").write_text("{}")
    capsys.readouterr()
    assert main(["config", "out", "train.seed=7"]) == 0
    assert "seed: 7\n" in capsys.readouterr().out
