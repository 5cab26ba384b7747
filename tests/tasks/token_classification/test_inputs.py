"""Which fields labelled tokens are taken from, and ids over several files."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from bigft.config.errors import BadInput
from bigft.data.records import Record
from bigft.tasks.token_classification.fields import IDS_BEGIN_ANEW, SPACED, columns, normalise


def test_ids_that_begin_anew_in_each_file_are_noted() -> None:
    rows = [{"id": name, "tokens": ["a"], "tags": ["O"]} for name in (1, 2, 1, 3, 2)]
    files = ["a.jsonl", "a.jsonl", "b.jsonl", "b.jsonl", "c.jsonl"]
    read = [Record(at, row, files[at], at + 1) for at, row in enumerate(rows)]
    options: dict[str, Any] = {"text_column_name": None, "label_column_name": None}
    found = normalise(read, **options, label_list=None, split="train")
    assert [record.fields["id"] for record in found] == [1, 2, 1, 3, 2]
    assert [record.notes for record in found] == [
        (), (), (IDS_BEGIN_ANEW,), (), (IDS_BEGIN_ANEW,)
    ]  # fmt: skip
    again = replace(read[4], file="b.jsonl", fields=rows[2])
    with pytest.raises(BadInput, match=r"b\.jsonl:5: the id 1 is also that of b\.jsonl:3 in the t"):
        normalise([*read[:4], again], **options, label_list=None, split="train")


@pytest.mark.parametrize(
    ("named", "used"),
    [
        ((None, None), {"tokens", "words", "text", "ner_tags", "tags", "labels", "spans",
                        "entities", "label", "ner"}),
        (("forms", "upos"), {"forms", "upos"}),
        (("forms", None), {"forms", "ner_tags", "tags", "labels", "spans", "entities", "label",
                            "ner"}),
        ((0, 3), {"0", "3"}),
    ],
)  # fmt: skip
def test_the_fields_that_may_be_taken_are_those_asked_for_or_the_usual(
    named: tuple[Any, Any], used: set[str]
) -> None:
    assert columns(*named) == used


def test_white_space_around_labels_is_left_out_and_noted() -> None:
    rows = [{"tokens": ["a", "b"], "tags": ["B-X ", " O"]}, {"tokens": ["a"], "tags": ["O"]}]
    read = [Record(at, row, "a.jsonl", at + 1) for at, row in enumerate(rows)]
    options: dict[str, Any] = {"text_column_name": None, "label_column_name": None}
    found = normalise(read, **options, label_list=["O", "B-X"], split="train")
    assert [record.fields["tags"] for record in found] == [["B-X", "O"], ["O"]]
    assert [record.notes for record in found] == [(SPACED,), ()]
    blank = [Record(0, {"tokens": ["a"], "tags": [" "]}, "a.jsonl", 1)]
    with pytest.raises(BadInput, match="token 1: ' ' in tags is no tag"):
        normalise(blank, **options, label_list=None, split="train")


def test_words_that_are_tags_are_in_the_place_of_the_labels() -> None:
    rows = [{"tokens": ["B-X", "O"], "tags": ["ann", "left"]}, {"tokens": ["O"], "tags": ["a"]}]
    read = [Record(at, row, "a.jsonl", at + 1) for at, row in enumerate(rows)]
    options: dict[str, Any] = {"text_column_name": None, "label_column_name": None}
    with pytest.raises(BadInput) as caught:
        normalise(read, **options, label_list=None, split="train")
    assert str(caught.value) == (
        "data.train_file: every word is a tag (B-X, O); "
        "swap data.text_column_name and data.label_column_name"
    )
    words = [Record(0, {"tokens": ["O", "B", "C-x"], "tags": ["O"] * 3}, "a.jsonl", 1)]
    assert len(normalise(words, **options, label_list=None, split="train")) == 1
