"""Spans whose borders are not those of words: counted and shown, refused where they are many."""

from __future__ import annotations

from typing import Any

import pytest

from bigft.config.errors import BadInput
from bigft.data.records import Record
from bigft.tasks.token_classification.fields import normalise

TEXT = "Give Ibuprofen 400 mg, or aspirin."
RIGHT = [(5, 14), (15, 18), (19, 21), (26, 33)]


def notes_on(*rows: tuple[str, list[tuple[int, int]]]) -> list[str]:
    records = []
    for at, (text, spans) in enumerate(rows):
        fields: dict[str, Any] = {"text": text, "spans": [[*span, "X"] for span in spans]}
        records.append(Record(at, fields, "a.jsonl", at + 1))
    notes: list[str] = []
    normalise(
        records,
        text_column_name=None,
        label_column_name=None,
        label_list=None,
        split="train",
        notes=notes,
    )
    return notes


def test_right_spans_need_no_note() -> None:
    assert notes_on((TEXT, RIGHT), ("no span", [])) == []


@pytest.mark.parametrize(
    ("span", "shown"),
    [((5, 11), "Ibupro|fen"), ((6, 14), "I|buprofen"), ((6, 11), "I|buprofen"),
     ((15, 17), "40|0"), ((5, 16), "4|00")],
)  # fmt: skip
def test_spans_that_cut_words_are_counted_and_shown(span: tuple[int, int], shown: str) -> None:
    assert notes_on((TEXT, RIGHT), (TEXT, [span])) == [
        f"1 of 5 spans of train (20%) begin or end inside of a word (a.jsonl:2: {shown}): "
        "their words are cut there"
    ]


@pytest.mark.parametrize(("span", "shown"), [((4, 14), "' Ibuprofen'"), ((26, 34), None)])
def test_spans_that_begin_or_end_with_white_space_are_counted(
    span: tuple[int, int], shown: str | None
) -> None:
    beginning = "1 of 1 spans of train begin or end with white space, which is left out"
    expected = [f"{beginning} (a.jsonl:1: {shown})"] if shown else []
    assert notes_on((TEXT, [span])) == expected


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("서울에서", (0, 2)),  # a particle follows
        ("ฉันรักกรุงเทพ", (6, 13)),
        ("والقاهرة", (1, 8)),
        ("北京市", (0, 2)),
        ("10mg", (0, 2)),
        ("Covid19", (0, 5)),
        ("don't", (0, 3)),
    ],
)
def test_what_is_written_together_may_be_cut(text: str, span: tuple[int, int]) -> None:
    assert notes_on((text, [span])) == []


@pytest.mark.parametrize("shift", [1, -1])
def test_spans_that_are_all_shifted_are_refused(shift: int) -> None:
    shifted = [(start + shift, end + shift) for start, end in RIGHT]
    with pytest.raises(BadInput) as caught:
        notes_on((TEXT, shifted))
    (line,) = str(caught.value).splitlines()
    assert line.startswith("data.train_file: ")
    assert " of 4 spans of train (" in line
    assert "begin or end inside of a word (a.jsonl:1: " in line
    assert line.endswith(
        "; count characters, not bytes, from 0, the end exclusive; where labels are of parts of "
        "words, give tokens and tags instead"
    )


def test_a_quarter_is_not_yet_too_much() -> None:
    (note,) = notes_on((TEXT, [(6, 14), *RIGHT[1:]]))
    assert note.startswith("1 of 4 spans of train (25%)")
    with pytest.raises(BadInput):
        notes_on((TEXT, [(6, 14), *RIGHT[1:3]]))


@pytest.mark.parametrize(
    ("text", "span"),
    [("Istanbulda oldu", (0, 8)), ("#LondonMarathon", (1, 7)), ("Berliner", (0, 6))],
)
def test_a_right_start_with_an_ending_behind_it_is_noted_and_kept(
    text: str, span: tuple[int, int]
) -> None:
    (note,) = notes_on((text, [span]))
    assert note.startswith("1 of 1 spans of train (100%) begin or end inside of a word")


def read(*rows: dict[str, Any], **options: Any) -> tuple[list[list[str | None]], list[str]]:
    """The tags of each record, and the notes."""
    notes: list[str] = []
    defaults: dict[str, Any] = {"text_column_name": None, "label_column_name": None}
    records = [Record(at, row, "a.jsonl", at + 1) for at, row in enumerate(rows)]
    found = normalise(
        records, **defaults | {"label_list": None, "split": "train", "notes": notes} | options
    )
    return [record.fields["tags"] for record in found], notes


def refusal(*rows: dict[str, Any], **options: Any) -> list[str]:
    with pytest.raises(BadInput) as caught:
        read(*rows, **options)
    return str(caught.value).splitlines()


ADA = "Ada Byron came to Ulm"
TAGS = [["B-PER", "I-PER", "O", "O", "B-LOC"]]


@pytest.mark.parametrize("field", ["spans", "entities", "label", "labels", "ner"])
@pytest.mark.parametrize(
    "span",
    [
        lambda start, end, label: [start, end, label],
        lambda start, end, label: {"start": start, "end": end, "label": label},
        lambda start, end, label: {"id": 7, "start_offset": start, "end_offset": end,
                                   "label": label},
        lambda start, end, label: {"start": start, "end": end, "labels": [label]},
        lambda start, end, label: {"start": start, "end": end, "entity_group": label, "word": "a"},
        lambda start, end, label: {"start": start, "end": end, "type": label, "score": 0.5},
    ],
    ids=["list", "spaCy", "doccano", "Label Studio", "transformers", "bigft predict"],
)  # fmt: skip
def test_spans_are_read_as_the_usual_tools_write_them(field: str, span: Any) -> None:
    row = {"text": ADA, field: [span(0, 9, "PER"), span(18, 21, "LOC")]}
    assert read(row) == (TAGS, [])


@pytest.mark.parametrize(
    "span",
    [[0, 9, ""], [0, 9, " "], [0, 9, ["PER"]], {"start": 0, "end": 9, "labels": ["A", "B"]},
     {"start": 0, "end": 9, "labels": []}, {"start": "0", "end": "9", "label": "PER"}],
)  # fmt: skip
def test_what_has_no_one_label_is_no_span(span: Any) -> None:
    (line,) = refusal({"text": ADA, "spans": [span]})
    assert line.startswith(f"a.jsonl:1: {span!r} in spans is no span; ")


def test_white_space_around_a_label_is_left_out() -> None:
    assert read({"text": ADA, "spans": [[0, 9, "PER "], [18, 21, " LOC"]]})[0] == TAGS


@pytest.mark.parametrize(
    "spans",
    [
        [[0, 9, "B-PER"], [18, 21, "B-LOC"]],
        [[0, 3, "B-PER"], [4, 9, "I-PER"], [18, 21, "B-LOC"]],
    ],
)
def test_labels_that_are_tags_are_those_of_the_first_words(spans: list[Any]) -> None:
    tags, notes = read({"text": ADA, "spans": spans})
    assert tags == TAGS
    (note,) = notes
    assert note.startswith("the labels of the spans of train are tags (B-LOC, B-PER")
    labels = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
    assert read({"text": ADA, "spans": spans}, label_list=labels)[0] == TAGS


def test_labels_of_which_some_only_look_like_tags_are_types() -> None:
    tags, notes = read({"text": ADA, "spans": [[0, 9, "B-cell"], [18, 21, "T-cell"]]})
    assert (tags, notes) == ([["B-B-cell", "I-B-cell", "O", "O", "B-T-cell"]], [])


def test_a_span_labelled_o_marks_nothing_and_is_counted() -> None:
    tags, notes = read({"text": ADA, "spans": [[0, 9, "PER"], [10, 14, "O"]]})
    assert tags == [["B-PER", "I-PER", "O", "O", "O"]]
    assert notes == [
        "1 spans of train have the label O and mark nothing (a.jsonl:1: span O [10, 14))"
    ]


def test_an_empty_field_beside_a_filled_one_is_refused_until_one_is_named() -> None:
    row = {"text": ADA, "spans": [], "entities": [[0, 9, "PER"]]}
    assert refusal(row) == [
        "a.jsonl:1: the field spans is empty, but entities is not; "
        "set data.label_column_name to spans or to entities"
    ]
    assert read(row, label_column_name="spans")[0] == [["O"] * 5]
    assert read(row, label_column_name="entities")[0] == [["B-PER", "I-PER", "O", "O", "O"]]
    assert read({"text": ADA, "spans": [], "entities": []})[0] == [["O"] * 5]
    assert read(row | {"spans": None})[0] == [["B-PER", "I-PER", "O", "O", "O"]]


def test_ends_that_are_inclusive_are_refused_where_they_are_most() -> None:
    rows = [{"text": ADA, "spans": [[0, 8, "PER"]]}] * 5
    (line,) = refusal(*rows)
    assert line == (
        "data.train_file: 5 of 5 spans of train (100%) leave out the last character of a word "
        "(a.jsonl:1: Byro|n, a.jsonl:2: Byro|n, a.jsonl:3: Byro|n); "
        "an end is exclusive: add 1 to each"
    )
    right = [{"text": ADA, "spans": [[0, 9, "PER"]]}] * 5
    assert len(read(*rows, *right)[1]) == 1
    assert len(read(*rows[:4])[1]) == 1


def test_a_list_of_types_names_no_labels_of_spans() -> None:
    assert refusal({"text": ADA, "spans": [[0, 9, "PER"]]}, label_list=["LOC", "PER"]) == [
        "data.label_list: LOC, PER: spans become tags, and none of these is one; "
        "write O, B-PER, I-PER and so on"
    ]


def prodigy(answer: str) -> dict[str, Any]:
    tokens = [{"text": "Ada", "start": 0, "end": 3, "id": 0}]
    spans = [{"start": 0, "end": 9, "label": "PER", "token_start": 0}]
    return {"text": ADA, "tokens": tokens, "spans": spans, "_task_hash": 1, "answer": answer}


def test_prodigys_records_are_read_as_texts_and_what_was_turned_down_is_refused() -> None:
    assert read(prodigy("accept"))[0] == [["B-PER", "I-PER", "O", "O", "O"]]
    assert refusal(prodigy("accept"), prodigy("reject")) == [
        "a.jsonl:2: the answer of Prodigy's annotator is 'reject'; "
        "keep records with the answer accept only"
    ]


@pytest.mark.parametrize(
    ("row", "fix"),
    [
        ({"id": 1, "data": {"text": ADA}, "annotations": []},
         "this is Label Studio's JSON: export JSON_MIN or CONLL2003 instead"),
        ({"classes": ["PER"], "annotations": []},
         'write {"text": ..., "entities": [[0, 5, "PER"]]} for each text'),
        ({"tokenized_text": ["Ada"], "ner": [[0, 0, "PER"]]},
         "write tokens and ner_tags, a tag for each token"),
    ],
)  # fmt: skip
def test_the_files_of_other_tools_are_told_what_to_convert(row: dict[str, Any], fix: str) -> None:
    (line,) = refusal(row)
    assert line.endswith(f"; {fix}")
