"""`bigft check`: a summary of what would run; refusals are in tests/bad_input."""

from __future__ import annotations

from pathlib import Path

import pytest

from bigft.cli import main


def test_what_would_run_is_told_in_a_line_each(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "config.yaml"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "train: 2 records, 2 rows, 18 tokens (longest 11), 5 targets",
        f"              7-7 {'#' * 30} 1",
        f"              8-8 {' ' * 30} 0",
        f"              9-9 {' ' * 30} 0",
        f"            10-10 {' ' * 30} 0",
        f"            11-11 {'#' * 30} 1",
        "test: 1 records, 1 rows, 9 tokens (longest 9), 2 targets",
        f"              9-9 {'#' * 30} 1",
        "the first rows of train, targets between \u27e6 and \u27e7:",
        "  [CLS]\u27e6a\u27e7##n ##n\u27e6m\u27e7##e ##t\u27e6b\u27e7##o ##b [SEP]",
        "  [CLS]\u27e6i\u27e7##n\u27e6u\u27e7##l ##m [SEP]",
        "labels: O, B-LOC, I-LOC, B-PER, I-PER",
        "3 steps of 8 samples, ranks: 1",
        "ok",
    ]


def test_a_check_writes_nothing_but_prepared_data(place: Path) -> None:
    before = {path.name for path in place.iterdir()}
    assert main(["check", "config.yaml"]) == 0
    assert {path.name for path in place.iterdir()} - before == {"cache"}


def test_ranks_make_the_step_larger(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train.per_device_train_batch_size=1", "train.max_steps=-1", "--nproc", "2"]
    assert main(["check", "config.yaml", *words]) == 0
    assert "3 steps of 2 samples, ranks: 2" in capsys.readouterr().out.splitlines()


def test_a_global_batch_that_these_ranks_do_not_make(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    keys = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 1}
    words = [f"train.{key}={value}" for key, value in keys.items()]
    words.append("train.global_batch_size=2")
    assert main(["check", "config.yaml", *words, "--nproc", "2"]) == 0
    assert main(["check", "config.yaml", *words, "--nproc", "3"]) == 2
    assert "* processes (3) is 3" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["0", "-1", "two", "1.5"])
def test_a_number_of_ranks_that_is_none(
    place: Path, capsys: pytest.CaptureFixture[str], number: str
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["check", "config.yaml", f"--nproc={number}"])
    assert exit_.value.code == 2
    error = f"error: argument --nproc: '{number}' is not a whole number above 0"
    assert capsys.readouterr().err.splitlines()[-1] == f"bigft check: {error}"
