"""Rows and batches of texts: the windows of a text are one target."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tasks.labelled import MULTI, REGRESSION, SINGLE, config, pair_tokenizer, prompt, record, task
from tiny import byte_tokenizer

from bigft.config.errors import BadInput
from bigft.data.records import Record, Row
from bigft.tasks.protocol import Reading
from bigft.tasks.text_classification import TextClassification


def tokens(one: TextClassification, row: Row) -> str:
    return " ".join(one._tokenizer.convert_ids_to_tokens(row.columns["input_ids"]))


# -- rows ---------------------------------------------------------------------------------------


def test_a_text_is_a_row_with_one_target() -> None:
    one = task()
    (row,) = one.encode(record("ab c"))
    assert tokens(one, row) == "[CLS] a ##b c [SEP]"
    assert (row.length, row.num_targets, row.columns["labels"]) == (5, 1, [1])
    assert one.preview(row) == [("[CLS] a ##b c [SEP] ", False), ("good", True)]


def test_a_pair_has_the_types_of_its_texts() -> None:
    one = task()
    (row,) = one.encode(record("a", pair="bc"))
    assert tokens(one, row) == "[CLS] a [SEP] b ##c [SEP]"
    assert row.columns["types"] == [0, 0, 0, 1, 1, 1]
    batch = one.collate([row, *one.encode(record("abcdefg"))])
    assert batch.inputs["token_type_ids"].tolist()[0] == [0, 0, 0, 1, 1, 1, 0, 0, 0]
    assert batch.inputs["token_type_ids"].tolist()[1] == [0] * 9


def test_a_long_text_is_cut_as_transformers_cuts_it_and_counted() -> None:
    one = task(max_length=5)
    (row,) = one.encode(record("abc def"))
    assert tokens(one, row) == "[CLS] a ##b ##c [SEP]"
    assert row.columns["lost"] == [3]
    assert row.notes == ("are cut at 5 tokens: data.max_seq_length",)
    expected = pair_tokenizer()("abc def", "gh ij", truncation=True, max_length=7)["input_ids"]
    (row,) = task(max_length=7).encode(record("abc def", pair="gh ij"))
    assert row.columns["input_ids"] == expected


def test_nothing_of_a_cut_stays_in_the_tokenizer_that_is_saved(tmp_path: Path) -> None:
    tokenizer = pair_tokenizer()
    for long_texts in ("cut", "windows"):
        one = task(max_length=5, tokenizer=tokenizer, task={"long_texts": long_texts})
        one.encode(record("abc def"))
        assert tokenizer.backend_tokenizer.truncation is None
        assert tokenizer.truncation_side == "right"


@pytest.mark.parametrize("side", ["right", "left"])
def test_windows_hold_every_token_of_a_text_in_order(side: str) -> None:
    tokenizer = pair_tokenizer()
    tokenizer.truncation_side = side
    options = {"long_texts": "windows", "doc_stride": 1}
    one = task(max_length=5, tokenizer=tokenizer, task=options)
    rows = one.encode(record("abcdefg"))
    assert [tokens(one, row) for row in rows] == [
        "[CLS] a ##b ##c [SEP]", "[CLS] ##c ##d ##e [SEP]", "[CLS] ##e ##f ##g [SEP]"
    ]  # fmt: skip
    assert [(row.window, row.num_windows, row.num_targets) for row in rows] == [
        (0, 3, 1), (1, 3, 1), (2, 3, 1)
    ]  # fmt: skip


def test_of_a_pair_the_second_text_goes_through_windows() -> None:
    options = {"long_texts": "windows", "doc_stride": 0}
    one = task(max_length=7, task=options)
    rows = one.encode(record("ab", pair="cdefg"))
    assert [tokens(one, row) for row in rows] == [
        "[CLS] a ##b [SEP] c ##d [SEP]",
        "[CLS] a ##b [SEP] ##e ##f [SEP]",
        "[CLS] a ##b [SEP] ##g [SEP]",
    ]
    assert rows[2].columns["types"] == [0, 0, 0, 0, 1, 1]
    with pytest.raises(BadInput, match=r"^train\.jsonl:7: the first text of the pair has 6 of the"):
        one.encode(record("abcdef", pair="cdefgh"))


def test_one_bad_record_does_not_spoil_the_others() -> None:
    one = task()
    good, bad = record(), Record(1, {"text": "a", "label": "worse"}, "train.jsonl", 8)
    rows = list(one.encode_all([good, bad, good]))
    assert [isinstance(each, BadInput) for each in rows] == [False, True, False]
    assert str(rows[1]).startswith("train.jsonl:8: the label 'worse' does not occur in the trai")


def test_a_row_without_room_for_a_text_names_what_says_so() -> None:
    with pytest.raises(BadInput, match=r"data\.max_seq_length: 4, but 3 special tokens go in fir"):
        task(max_length=4)


def test_a_pair_of_a_byte_level_tokenizer_has_no_types() -> None:
    one = task(tokenizer=byte_tokenizer(model_input_names=["input_ids", "attention_mask"]))
    batch = one.collate(one.encode(record("a")))
    assert set(batch.inputs) == {"input_ids", "attention_mask"}


# -- batches ------------------------------------------------------------------------------------


def test_labels_are_what_the_head_documents() -> None:
    single = task()
    batch = single.collate([*single.encode(record()), *single.encode_prompt(prompt(single))])
    assert batch.labels.tolist() == [1, -100]
    assert batch.labels.dtype == torch.int64
    assert (batch.num_targets, batch.target_rows_M.tolist()) == (1, [0])
    several = task(MULTI)
    label = {"bad": 1, "good": None, "none": 0}
    batch = several.collate([*several.encode(record(label=label)), *several.encode(record())][:1])
    assert batch.labels.tolist() == [[1, -100, 0]]
    assert batch.num_targets == 2
    number = task(REGRESSION)
    batch = number.collate(
        [*number.encode(record(label=2.5)), *number.encode_prompt(prompt(number))]
    )
    assert batch.labels.tolist()[0] == 2.5
    assert math.isnan(batch.labels.tolist()[1])
    assert batch.num_targets == 1
    assert math.isnan(batch.without_targets().labels[0])


def test_the_windows_of_a_text_are_one_target() -> None:
    one = task(max_length=5, task={"long_texts": "windows", "doc_stride": 0})
    rows = [*one.encode(record("abcdefg")), *one.encode(record("a"))]
    batch = one.collate(rows)
    assert batch.inputs["row_weight_B"].tolist() == pytest.approx([1 / 3] * 3 + [1])
    assert batch.num_targets == pytest.approx(2)
    assert one.collate(rows[:1]).num_targets == 1 / 3


# -- options ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("problem_type", "sections", "key"),
    [
        (MULTI, {"optim": {"label_smoothing_factor": 0.1}}, "optim.label_smoothing_factor"),
        (REGRESSION, {"optim": {"class_weights": "balanced"}}, "optim.class_weights"),
        (REGRESSION, {"optim": {"focal_gamma": 1.0}}, "optim.focal_gamma"),
        (MULTI, {"task": {"out_of_scope_label": "none"}}, "task.out_of_scope_label"),
        (SINGLE, {"task": {"decision_threshold": 0.4}}, "task.decision_threshold"),
    ],
)
def test_options_without_meaning_for_what_was_found_are_refused(
    problem_type: str, sections: Any, key: str
) -> None:
    with pytest.raises(BadInput, match=rf"{key}: given, but it has no meaning with {problem_type}"):
        task(problem_type, **sections)


def test_balanced_weights_are_those_of_scikit_learn() -> None:
    from sklearn.utils.class_weight import compute_class_weight

    one = task(counts=[6, 3, 1], optim={"class_weights": "balanced"})
    expected = compute_class_weight("balanced", classes=np.arange(3), y=[0] * 6 + [1] * 3 + [2])
    assert one._classes.weights == pytest.approx(expected.tolist())
    assert one.model_options()["label_counts"] == [6, 3, 1]
    missing = task(counts=[2, 0, 2], optim={"class_weights": "balanced"})
    assert missing._classes.weights == [1.0, 1.0, 1.0]


def test_the_loss_of_one_that_knows_nothing() -> None:
    assert task().uniform_loss() == pytest.approx(math.log(3))
    assert task(MULTI).uniform_loss() == pytest.approx(math.log(2))
    assert task(REGRESSION).uniform_loss() is None


# -- reading ------------------------------------------------------------------------------------


def test_what_is_read_is_told(tmp_path: Path) -> None:
    file = tmp_path / "train.csv"
    file.write_text("text,label\nab,x\nb,y\n,x\nc,x\n", encoding="utf-8")
    reading = Reading()
    given = config(data={"train_file": [str(file)], "on_bad_record": "drop"})
    read = TextClassification.read(given, reading)
    assert read.labels == ["x", "y"]
    assert reading.facts == {"problem_type": SINGLE, "label_counts": [2, 1]}
    assert [one.index for one in read.splits["train"]] == [0, 1, 2]
    assert reading.notes == [
        f"1 of 4 records of train are dropped (data.on_bad_record): {file}:4: the text in text "
        "is empty",
        f"task.problem_type is {SINGLE}: each label is a text, 2 in all",
    ]


def test_the_label_of_what_is_out_of_scope_is_one_of_the_model_s(tmp_path: Path) -> None:
    file = tmp_path / "train.csv"
    file.write_text("text,label\nab,x\nb,y\n", encoding="utf-8")
    sections = {"data": {"train_file": [str(file)]}, "task": {"out_of_scope_label": "oos"}}
    reading = Reading()
    read = TextClassification.read(config(**sections), reading)
    assert read.labels == ["x", "y", "oos"]
    assert reading.facts["label_counts"] == [1, 1, 0]
