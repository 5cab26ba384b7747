"""Spans whose borders are not those of words: counted and shown, refused where they are many."""

from __future__ import annotations

from typing import Any

import pytest

from bigft.config.errors import BadInput
from bigft.data.records import Record
from bigft.tasks.token_fields import normalise

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
