"""Bad input of a text classifier's run is refused before training, by name and with the fix."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import letter_tokenizer, tiny_model

Refused = Callable[..., list[str]]

CONFIG = """\
task: {name: text-classification}
model: {model_name_or_path: model}
data:
  train_file: train.jsonl
  test_file: test.jsonl
train:
  output_dir: run
"""
GOOD = [{"text": "ab c", "label": "x"}, {"text": "d", "label": "y"}]


@pytest.fixture
def place(here: Path) -> Path:
    """A run of a tiny BERT on two good texts."""
    tiny_model("bert", "AutoModel").save_pretrained("model")
    letter_tokenizer().save_pretrained("model")
    Path("config.yaml").write_text(CONFIG)
    write("train.jsonl", *GOOD)
    write("test.jsonl", *GOOD)
    return here


def write(name: str, *rows: Any) -> None:
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    Path(name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def test_what_is_spoilt_here_is_accepted_as_it_is(notes: Callable[..., list[str]]) -> None:
    found = notes()
    assert any("task.problem_type is single_label_classification: each label is a text" in note
               for note in found)  # fmt: skip


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"text": " ", "label": "x"},
         "train.jsonl:3: the text in text is empty; write a text, or delete the record"),
        ({"text": "a"},
         "train.jsonl:3: no field label or labels or category or categories or intent or class or "
         "sentiment or target or score or 1; there are text; name the field "
         "(data.label_column_name)"),
        ({"text": "a", "label": None},
         "train.jsonl:3: no label in label; write a label, or delete the record"),
        ({"text": "a", "label": 4},
         "train.jsonl:3: the label 4 is an integer, where most are a text; write all labels alike"),
        ('["a", "x"',
         "train.jsonl:3:10: no JSON (Expecting ',' delimiter); write one JSON object a line"),
    ],
)  # fmt: skip
def test_a_bad_record_is_named(refused: Refused, row: Any, answer: str) -> None:
    write("train.jsonl", *GOOD, row)
    assert answer in refused()


def test_a_label_of_the_test_set_that_training_does_not_have_is_named(refused: Refused) -> None:
    write("test.jsonl", *GOOD, {"text": "a", "label": "other"})
    assert refused() == [
        "test.jsonl:3: the label 'other' does not occur in the training data (x, y); correct it, "
        "or name every label in data.label_list"
    ]


def test_dropped_records_are_counted_and_named(notes: Callable[..., list[str]]) -> None:
    write("train.jsonl", *GOOD, {"text": "", "label": "x"})
    note = "1 of 3 records of train are dropped (data.on_bad_record): train.jsonl:3: the text in "
    assert any(note in found for found in notes("data.on_bad_record=drop"))


def test_where_nothing_is_left_what_is_wrong_is_said(refused: Refused) -> None:
    words = ("data.on_bad_record=drop", "data.text_column_name=said")
    assert refused(*words)[0].startswith(
        "train.jsonl:1: no field said; there are text, label; name the field (data.text_column"
    )


@pytest.mark.parametrize(
    ("words", "answer"),
    [
        (["task.problem_type=regression"],
         "train.jsonl:1: the label 'x' is no number; write numbers, or set another "
         "task.problem_type"),
        (["task.problem_type=multi_label_classification"],
         "command line: task.problem_type=multi_label_classification: multi_label_classification, "
         "but each label is a text; set it to single_label_classification, or to auto"),
        (["task.decision_threshold=0.4"],
         "command line: task.decision_threshold=0.4: given, but it has no meaning with "
         "single_label_classification; leave it out, or name task.out_of_scope_label"),
        (['optim.class_weights={"z": 2.0}'],
         "command line: optim.class_weights={\"z\": 2.0}: no label 'z'; the labels are x, y"),
        (["data.max_seq_length=3"],
         "command line: data.max_seq_length=3: 3, but 3 special tokens go in first; give at least "
         "5"),
        (["train.metric_for_best_model=macrof1"],
         "train.metric_for_best_model=macrof1: no metric 'macrof1'; did you mean macro_f1?"),
        (["data.train_file=train.jsonl#x"],
         "train.jsonl:2:1: no JSON (Extra data); write one JSON array"),
        (["data.group_column_name=q"],
         "train.jsonl:1: no field q; there are text, label; name the field "
         "(data.group_column_name)"),
    ],
)  # fmt: skip
def test_a_key_that_does_not_fit_the_data_is_named(
    refused: Refused, words: list[str], answer: str
) -> None:
    assert answer in " ".join(refused(*words))


def test_a_list_that_a_json_file_does_not_have_is_named(refused: Refused) -> None:
    Path("all.json").write_text(json.dumps({"train": [["a", "x"]], "val": [["b", "x"]]}))
    (line,) = refused("data.train_file=all.json#dev", "data.test_file=all.json#val")
    assert line == (
        "all.json: an object without an array under 'dev' (keys: train, val); name one of its "
        "arrays: all.json#train"
    )
