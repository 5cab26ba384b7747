"""`bigft bench`: finds the checkout's benchmark and hands over."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from bigft.cli import bench, main

SCRIPT = "import sys, bigft; print(*sys.argv[1:]); sys.exit(7)\n"


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "benchmarks").mkdir()
    for name in ("masked_cross_entropy", "train_ner"):
        (tmp_path / "benchmarks" / f"bench_{name}.py").write_text(SCRIPT)
    (tmp_path / "benchmarks" / "harness.py").touch()
    monkeypatch.setattr(bench, "CHECKOUT", tmp_path)
    return tmp_path


def test_without_a_name_the_names(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench"]) == 0
    assert capsys.readouterr().out.split() == ["masked_cross_entropy", "train_ner"]


def test_the_script_gets_the_options_and_its_exit_code_comes_back(
    checkout: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["bench", "masked_cross_entropy", "--device", "cpu", "--quick", "--out", "there"]
    assert main(words) == 7
    assert capfd.readouterr().out == "--device cpu --quick --out there\n"
    assert main(["bench", "train_ner", "--", "--data", "DIR"]) == 7
    assert capfd.readouterr().out == "--data DIR\n"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["masked_crossentropy"], "no benchmark 'masked_crossentropy'; did you mean masked_cross_"),
        (["zzz"], "no benchmark 'zzz'; choose one of masked_cross_entropy, train_ner"),
        (["train_ner", "--device", "cuda"], "sees no CUDA device; choose --device cpu"),
    ],
)
def test_what_cannot_be_measured_is_refused(
    checkout: Path,
    words: list[str],
    complaint: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["bench", *words]) == 2
    assert complaint in capsys.readouterr().err


def test_an_installed_bigft_has_no_benchmarks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench, "CHECKOUT", tmp_path)
    assert main(["bench", "masked_cross_entropy"]) == 2
    assert "run it from a checkout (pip install -e .)" in capsys.readouterr().err


def test_the_benchmarks_of_this_checkout_are_found() -> None:
    operators = {"masked_cross_entropy", "linear_cross_entropy", "token_classification_head"}
    trainings = {"train_head", "train_lm", "train_ner", "train_scratch", "train_sft"}
    trainings |= {"train_mlm", "train_text"}
    waits = {"starts", "prepare_chat", "shared_machine"}
    assert (
        operators | trainings | waits | {"packing", "checkpoint"}
        == bench.find(bench.CHECKOUT / "benchmarks").keys()
    )
