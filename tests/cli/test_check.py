"""`bigft check`: a summary of what would run; refusals are in tests/bad_input."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny_seq2seq import eos_tokenizer, tiny_seq2seq

from bigft.cli import main

FIRST_ROWS = "the first rows of train, targets between \u27e6 and \u27e7:"


def test_what_would_run_is_told_in_a_line_each(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "config.yaml"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "train: 2 records, 2 rows, 18 tokens (longest 11), 5 targets",
        "  tokens of a row:",
        f"              7-7 {'#' * 30} 1",
        f"              8-8 {' ' * 30} 0",
        f"              9-9 {' ' * 30} 0",
        f"            10-10 {' ' * 30} 0",
        f"            11-11 {'#' * 30} 1",
        "test: 1 records, 1 rows, 9 tokens (longest 9), 2 targets",
        "  tokens of a row:",
        f"              9-9 {'#' * 30} 1",
        "the first rows of train, targets between \u27e6 and \u27e7:",
        "  [CLS]\u27e6a\u27e7##n ##n\u27e6m\u27e7##e ##t\u27e6b\u27e7##o ##b [SEP]",
        "  [CLS]\u27e6i\u27e7##n\u27e6u\u27e7##l ##m [SEP]",
        "the first records of train, words with their tags:",
        "  ann/B-PER met bob/B-PER",
        "  in ulm/B-LOC",
        "what has which label in the first 2 records:",
        "  LOC: ulm",
        "  PER: ann, bob",
        "labels: O, B-LOC, I-LOC, B-PER, I-PER",
        "3 steps of 8 samples, ranks: 1",
        "ok",
    ]


def test_the_data_of_a_run_that_is_finished_is_shown_before_the_refusal(
    trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for asked in ("config.yaml", "out"):
        assert main(["check", asked]) == 2
        shown = capsys.readouterr()
        assert shown.out.startswith("train: 2 records, 2 rows")
        assert shown.out.splitlines()[-1] != "ok"
        assert "out holds a finished run" in shown.err


def test_a_run_that_is_finished_hides_no_mistake(
    trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "config.yaml", "data.train_file=none.jsonl"]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "out holds a finished run" in shown.err
    assert "none.jsonl: no such file" in shown.err


def test_sources_and_targets_are_counted_apart(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tiny_seq2seq().save_pretrained("model")
    eos_tokenizer().save_pretrained("model")
    Path("train.tsv").write_text("ab\tabcde\nabc\ta\n")
    options = ["max_target_length=16", "generation.max_new_tokens=8"]
    words = ["model.model_name_or_path=model", "data.train_file=train.tsv", "train.output_dir=out"]
    words += ["data.text_column_name=0", "data.label_column_name=1", "task=seq2seq"]
    assert main(["check", *words, *(f"task.{option}" for option in options)]) == 0
    lines = capsys.readouterr().out.splitlines()
    of_source, of_target = (lines.index(f"  tokens of a {side}:") for side in ("source", "target"))
    shown = [line.split() for line in lines[of_source : lines.index(FIRST_ROWS)]]
    rows = {line[0]: int(line[-1]) for line in shown[1 : of_target - of_source]}
    assert rows == {"4-4": 1, "5-5": 1}  # with the space before a text, and its end
    rows = {line[0]: int(line[-1]) for line in shown[of_target - of_source + 1 :]}
    assert rows == {"3-3": 1, "4-4": 0, "5-5": 0, "6-6": 0, "7-7": 1}


def test_labels_that_are_shifted_by_a_word_are_seen(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("train.jsonl").write_text(
        '{"tokens": ["ann", "met", "new", "york"], "ner_tags": ["O", "B-PER", "O", "B-LOC"]}\n'
    )
    assert main(["check", "config.yaml"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  ann met/B-PER new york/B-LOC" in lines
    assert "  PER: met" in lines


def test_what_is_odd_about_tags_spans_and_schedule_is_noted(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [["PER-B", "PER-I", "O"], ["LOC-B", "O", "O"]]
    for name in ("train", "test"):
        lines = [json.dumps({"tokens": ["ann", "lee", "left"], "ner_tags": tags}) for tags in rows]
        Path(f"{name}.jsonl").write_text("\n".join(lines[: 2 if name == "train" else 1]) + "\n")
    words = ["optim.learning_rate=5", "optim.warmup_steps=500", "train.max_steps=3"]
    assert main(["check", "config.yaml", *words, "train.num_train_epochs=3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "labels: O, B-LOC, I-LOC, B-PER, I-PER" in lines
    notes = [line for line in lines if line.startswith("note: ")]
    expected = ["3 of 4 labels are respelled: ", "1 of 1 records of test occur in train too"]
    expected += ["optim.learning_rate 5 is far", "the warm-up of 500 steps", "train.max_steps 3 "]
    for note, beginning in zip(notes, expected, strict=True):
        assert note.startswith(f"note: {beginning}")


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


@pytest.mark.parametrize(
    "row",
    [
        {"tokens": ["ann", "left"], "ner_tags": ["O", "O"]},
        {"text": "ann left", "spans": []},
        {"text": "ann left", "spans": [[0, 3, "O"]]},
    ],
)
def test_a_training_set_without_any_entity_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str], row: dict[str, object]
) -> None:
    Path("train.jsonl").write_text(f"{json.dumps(row)}\n" * 3)
    assert main(["check", "config.yaml", "data.test_file=[]"]) == 2
    assert capsys.readouterr().err.endswith(
        "config.yaml:5: data.train_file: no entity in it: every label is O, and there is nothing "
        "to learn; check the labels, and data.label_column_name\n"
    )


def test_a_training_set_of_one_label_beside_no_o_is_no_refusal(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("train.jsonl").write_text('{"tokens": ["ann"], "ner_tags": ["NOUN"]}\n' * 3)
    assert main(["check", "config.yaml", "data.test_file=[]"]) == 0
    assert "note: every label of the training set is 'NOUN'" in capsys.readouterr().out
