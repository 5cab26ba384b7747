"""`bigft evaluate RUN`: scores of a run's model on its splits, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from bigft.cli import main
from bigft.runtime.run_directory import RunDirectory


def test_scores_are_one_json_object(trained_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["evaluate", "out", "--json"]) == 0
    scores = json.loads(capsys.readouterr().out)
    assert scores["samples"] == 1
    assert scores.keys() >= {"loss", "precision", "recall", "f1", "accuracy"}


def test_a_report_stands_before_the_scores(
    trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "out", "--split", "train", "--batch-size", "1"]) == 0
    report, _, scores = capsys.readouterr().out.partition("{")
    assert "support" in report
    assert json.loads("{" + scores)["samples"] == 2


def test_an_evaluation_leaves_the_run_as_it_is(trained_run: Path) -> None:
    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in trained_run.rglob("*") if path.is_file()}

    before = contents()
    assert main(["evaluate", "out"]) == 0
    assert contents() == before


def test_a_split_that_the_run_has_not(
    trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", "out", "--split", "validation"]) == 2
    assert capsys.readouterr().err == (
        "data.validation_file: the run's config names none; "
        "give data.validation_file=FILE or --split train or --split test\n"
    )


@pytest.mark.parametrize(
    "words",
    [
        ["data.test_file=more.jsonl"],
        ["data.validation_file=more.jsonl", "--split", "validation"],
        ["--split", "train", "data.train_file=more.jsonl", "data.max_train_samples=3"],
    ],
)
def test_another_file_is_measured_where_an_override_names_it(
    trained_run: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    rows = [{"tokens": ["ann", "left"], "ner_tags": ["B-PER", "O"]}] * 3
    Path("more.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["evaluate", "out", *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 3


def test_an_override_may_say_how_the_files_are_read(
    trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"words": ["ann", "left"], "labels": ["B-PER", "O"]}
    Path("other.txt").write_text((json.dumps(row) + "\n") * 2)
    words = ["data.format=jsonl", "data.text_column_name=words", "data.label_column_name=labels"]
    assert main(["evaluate", "out", "data.test_file=other.txt", *words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 2


@pytest.mark.parametrize(
    ("word", "error"),
    [
        ("optim.learning_rate=1", "not what `bigft evaluate` can change; give data.key=value"),
        ("data.chat_template=t", "the run's tokenizer holds the template that it learnt; leave it"),
        (
            "data.validation_file=a",
            "not read where --split is test; leave it out, or give --split validation",
        ),
        (
            "data.train_file=a",
            "not read where --split is test; leave it out, or give --split train",
        ),
        ("data.max_train_samples=1", "not read where --split is test; leave it out, or give "),
    ],
)
def test_overrides_that_an_evaluation_does_not_heed_are_refused(
    trained_run: Path, capsys: pytest.CaptureFixture[str], word: str, error: str
) -> None:
    assert main(["evaluate", "out", word]) == 2
    assert capsys.readouterr().err.startswith(f"{word}: {error}")


def test_what_there_is_to_tell_of_the_data_is_told(
    trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    row = {"tokens": ["ann"] * 50, "ner_tags": ["O"] * 50}
    Path("more.jsonl").write_text(json.dumps(row) + "\n")
    assert main(["evaluate", "out", "data.test_file=more.jsonl", "--json"]) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)["samples"] == 1
    assert "note: 1 of 1 records of test became several rows, " in printed.err


def test_data_that_is_gone(trained_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("test.jsonl").rename("tests.jsonl")
    assert main(["evaluate", "out"]) == 2
    error = "test.jsonl: no such file; did you mean tests.jsonl?"
    assert capsys.readouterr().err.splitlines()[-1] == error


@pytest.mark.parametrize("verb", [["evaluate"], ["predict", "--text", "ann"]])
def test_what_is_no_run(place: Path, capsys: pytest.CaptureFixture[str], verb: list[str]) -> None:
    assert main([*verb, "model"]) == 2
    assert capsys.readouterr().err == (
        "model: no run directory: cannot read run.json (No such file or directory); "
        "give the train.output_dir of a run\n"
    )


@pytest.mark.parametrize("verb", [["evaluate"], ["predict", "--text", "ann"]])
def test_a_run_that_left_no_model(
    trained_run: Path, capsys: pytest.CaptureFixture[str], verb: list[str]
) -> None:
    shutil.rmtree(trained_run / "model")
    assert main([*verb, "out"]) == 2
    assert capsys.readouterr().err == "out: no model/ in it; let the run finish first\n"


@pytest.mark.parametrize("verb", [["evaluate"], ["predict", "--text", "ann"]])
def test_a_run_whose_weights_are_damaged(
    trained_run: Path, capsys: pytest.CaptureFixture[str], verb: list[str]
) -> None:
    (trained_run / "model" / "model.safetensors").write_bytes(b"\x08")
    assert main([*verb, "out"]) == 2
    assert capsys.readouterr().err.startswith("out/model/model.safetensors: truncated or damaged (")


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["out", "--split", "dev"], "argument --split: invalid choice: 'dev'"),
        (["out", "--batch-size", "0"], "argument --batch-size: '0' is not a whole number above 0"),
        ([], "the following arguments are required: run"),
    ],
)
def test_arguments_that_are_wrong(
    capsys: pytest.CaptureFixture[str], words: list[str], error: str
) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["evaluate", *words])
    assert exit_.value.code == 2
    assert f"bigft evaluate: error: {error}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("tagging", "tags", "message"),
    [
        (["BIO", None], ["I-PER", "O"], "'I-PER' continues no entity at the beginning"),
        (["IOB1", None], ["B-PER", "O"], "'B-PER' separates no entities of its type at the beg"),
        (["BIO", "X-B"], ["O", "PER-I"], "'I-PER' continues no entity after 'O'"),
    ],
)
def test_tags_are_read_as_the_run_read_its_training_set(
    trained_run: Path,
    capsys: pytest.CaptureFixture[str],
    tagging: list[str | None],
    tags: list[str],
    message: str,
) -> None:
    """Alone, each of these test sets would be read in another scheme, without a word."""
    RunDirectory("out").update(tagging=tagging)
    row = {"tokens": ["zoe", "left"], "ner_tags": tags}
    Path("test.jsonl").write_text(json.dumps(row) + "\n")
    assert main(["evaluate", "out"]) == 2
    assert message in capsys.readouterr().err


def test_a_spelling_of_the_run_reads_a_test_set_that_shows_too_little_of_it(
    trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    RunDirectory("out").update(tagging=["BIO", "X-B"])
    row = {"tokens": ["zoe", "left"], "ner_tags": ["PER-B", "O"]}
    Path("test.jsonl").write_text(json.dumps(row) + "\n")
    assert main(["evaluate", "out", "--json"]) == 0
    assert "f1" in json.loads(capsys.readouterr().out)
