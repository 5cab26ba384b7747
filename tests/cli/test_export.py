"""`bigft export RUN`: what it writes, prints and refuses."""

from __future__ import annotations

from pathlib import Path

import pytest
import transformers
from peft import PeftConfig
from training.adapters import finished_run

from bigft.cli import main


def test_a_merge_prints_both_scores_and_is_a_plain_model(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finished_run("adapt.method=lora")
    assert main(["export", "out", "--merge"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["test", "adapter", "merged", "difference"]
    assert lines[1].split()[0] == "loss"
    assert lines[-1] == f"written: {Path('out', 'merged')}"
    transformers.AutoModelForTokenClassification.from_pretrained("out/merged")


def test_an_adapter_is_copied(place: Path) -> None:
    finished_run("adapt.method=lora")
    assert main(["export", "out", "--output", "deep/copy", "--dtype", "bfloat16"]) == 0
    copied = PeftConfig.from_pretrained("deep/copy")
    assert copied.base_model_name_or_path == str(place / "model")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["out"], "--output: not given; name the directory to write, or add --merge"),
        (["nowhere", "--merge"], "nowhere: "),
        (["out", "--output", "model"], "--output model: is there already; name another directory"),
        (["out", "--merge"], "--merge: adapt.method full leaves a whole model; leave --merge out"),
    ],
)
def test_what_cannot_be_exported_is_refused(
    words: list[str], message: str, trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", *words]) == 2
    assert capsys.readouterr().err.startswith(message)
