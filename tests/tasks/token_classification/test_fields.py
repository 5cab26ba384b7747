"""Every way to write labelled tokens becomes one; what would mislabel is refused by its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from bigft.config.errors import BadInput
from bigft.data.formats import ReadOptions, read_records
from bigft.data.records import Record
from bigft.data.tag_schemes import Scheme, detect_scheme
from bigft.data.tag_spellings import Tagging
from bigft.tasks.token_classification.fields import (
    label_set,
    normalise,
    tag_sequences,
    to_bio_records,
)


def records(*rows: dict[str, Any]) -> list[Record]:
    return [Record(at, row, "a.jsonl", at + 1) for at, row in enumerate(rows)]


def run(*rows: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    """The fields of the normalised records."""
    defaults: dict[str, Any] = {
        "text_column_name": None,
        "label_column_name": None,
        "label_list": None,
        "split": "train",
    }
    return [dict(record.fields) for record in normalise(records(*rows), **defaults | options)]


def refusal(*rows: dict[str, Any], **options: Any) -> list[str]:
    with pytest.raises(BadInput) as caught:
        run(*rows, **options)
    return str(caught.value).splitlines()


def tagged(*sequences: Sequence[str | None]) -> list[Record]:
    return records(*({"tokens": ["w"] * len(tags), "tags": list(tags)} for tags in sequences))


# -- lists of tokens and tags ---------------------------------------------------------------------


@pytest.mark.parametrize("text", ["tokens", "words"])
@pytest.mark.parametrize("label", ["ner_tags", "tags", "labels"])
def test_the_usual_names_are_found(text: str, label: str) -> None:
    assert run({label: ["B-X", "O"], text: ["a", "b"]}) == [
        {"tokens": ["a", "b"], "tags": ["B-X", "O"]}
    ]


def test_the_first_of_the_usual_names_wins() -> None:
    row = {"tags": ["X"], "ner_tags": ["O"], "words": ["w"], "tokens": ["t"], "text": "z"}
    assert run(row) == [{"text": "z", "tokens": ["t"], "tags": ["O"]}]


def test_asked_names_win_over_the_usual() -> None:
    row = {"tokens": ["a"], "ner_tags": ["O"], "forms": ["b"], "upos": ["NOUN"], "x": 1}
    assert run(row, text_column_name="forms", label_column_name="upos") == [
        {"tokens": ["b"], "tags": ["NOUN"]}
    ]


def test_numbers_become_names_of_the_label_list() -> None:
    row = {"tokens": ["a", "b", "c"], "tags": [1, 0, None]}
    assert run(row, label_list=["O", "B-X"])[0]["tags"] == ["B-X", "O", None]


def test_labels_may_be_absent_where_none_are_required() -> None:
    assert run({"tokens": ["a", "b"]}, require_labels=False)[0]["tags"] == [None, None]
    (fields,) = run({"text": "a b"}, require_labels=False)
    assert (fields["tokens"], fields["tags"]) == (["a", "b"], [None, None])


def test_columns_are_found_whatever_their_number_or_name_was() -> None:
    row = {"tokens": ["a"], "ner_tags": ["O"], "lines": [7]}
    asked = {"text_column_name": 1, "label_column_name": "upos"}
    assert run(row, **asked) == [{"tokens": ["a"], "tags": ["O"], "lines": [7]}]


def test_id_and_text_are_kept() -> None:
    row = {"id": "s1", "text": "a", "tokens": ["a"], "tags": ["O"], "other": 1}
    assert run(row) == [{"id": "s1", "text": "a", "tokens": ["a"], "tags": ["O"]}]


def test_an_empty_token_may_only_be_outside() -> None:
    assert run({"tokens": ["", " "], "tags": ["O", None]})[0]["tokens"] == ["", " "]
    assert refusal({"tokens": ["a", " "], "tags": ["O", "B-X"]}) == [
        "a.jsonl:1: token 2: the token ' ' is empty, but has the label B-X; "
        "write the token, or the label O"
    ]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            {"tokens": ["a", "b"], "tags": ["O"]},
            "a.jsonl:1: 2 tokens, but 1 tags in tags; write one tag per token",
        ),
        (
            {"tokens": ["a", 5], "tags": ["O", "O"]},
            "a.jsonl:1: token 2: 5 in tokens is no string; put the token in quotes",
        ),
        (
            {"tokens": 5, "tags": ["O"]},
            "a.jsonl:1: the field tokens is 5; write a list of tokens, or a text",
        ),
        (
            {"tokens": ["a"], "tags": "O"},
            "a.jsonl:1: the field tags is 'O'; write a list of tags",
        ),
        (
            {"text": "a", "spans": {"start": 0}},
            "a.jsonl:1: the field spans is {'start': 0}; write a list of spans",
        ),
        (
            {"tokens": [], "tags": []},
            "a.jsonl:1: no token; delete the record, or write its text",
        ),
        (
            {"text": " \u3000", "spans": []},
            "a.jsonl:1: no token; delete the record, or write its text",
        ),
        (
            {"token": ["a"], "tags": ["O"]},
            "a.jsonl:1: no field tokens or words or text; there are token, tags; "
            "did you mean token? (data.text_column_name)",
        ),
        (
            {"tokens": ["a"], "upos": ["X"]},
            "a.jsonl:1: no field ner_tags or tags or labels; there are tokens, upos; "
            "name the field (data.label_column_name)",
        ),
        (
            {"text": "a", "span": []},
            "a.jsonl:1: no field spans or entities or label or labels or ner; "
            "there are text, span; "
            "did you mean span? (data.label_column_name)",
        ),
        (
            {"tokens": ["a"], "tags": [1]},
            "a.jsonl:1: token 1: the tag 1 in tags is a number; "
            "list the labels in data.label_list, in the order of their numbers",
        ),
        (
            {"tokens": ["a"], "tags": [""]},
            "a.jsonl:1: token 1: '' in tags is no tag; write a label, or null for no target",
        ),
        (
            {"tokens": ["a"], "tags": [True]},
            "a.jsonl:1: token 1: True in tags is no tag; write a label, or null for no target",
        ),
    ],
)
def test_a_row_that_cannot_be_used_says_why(row: dict[str, Any], message: str) -> None:
    assert refusal(row) == [message]


@pytest.mark.parametrize("number", [2, -1, -100])
def test_a_number_outside_of_the_label_list_is_refused(number: int) -> None:
    assert refusal({"tokens": ["a"], "tags": [number]}, label_list=["O", "B-X"]) == [
        f"a.jsonl:1: token 1: the tag {number} in tags is no number of data.label_list; "
        "write 0 to 1, or null for no target"
    ]


def test_a_label_outside_of_the_label_list_is_refused() -> None:
    row = {"tokens": ["a", "b", "c"], "tags": ["B-PRE", "O", "zzz"]}
    assert refusal(row, label_list=["O", "B-PER"]) == [
        "a.jsonl:1: token 1: the label 'B-PRE' is not in data.label_list; did you mean B-PER?",
        "a.jsonl:1: token 3: the label 'zzz' is not in data.label_list; there are B-PER, O",
    ]


def test_a_missing_asked_field_names_the_nearest() -> None:
    assert refusal({"tokens": ["a"], "ner": ["O"]}, label_column_name="nre") == [
        "a.jsonl:1: no field nre; there are tokens, ner; did you mean ner? (data.label_column_name)"
    ]


def test_a_column_number_for_named_fields_is_refused() -> None:
    assert refusal({"tokens": ["a"], "tags": ["O"]}, text_column_name=0) == [
        "a.jsonl:1: data.text_column_name: column number 0, but the fields have names: "
        "tokens, tags; write a field's name"
    ]


def test_a_repeated_id_names_both_places() -> None:
    row = {"tokens": ["a"], "tags": ["O"]}
    assert refusal({"id": 1} | row, {"id": 2} | row, {"id": 1} | row, split="test") == [
        "a.jsonl:3: the id 1 is also that of a.jsonl:1 in the test set; give each record its own id"
    ]
    assert len(run({"id": None} | row, {"id": None} | row, row)) == 3


def test_an_empty_set_is_refused() -> None:
    assert refusal(split="validation") == ["data.validation_file: no sample in it"]


def test_a_problem_in_columns_names_the_line_of_its_token() -> None:
    row = {"tokens": ["a", "b"], "ner_tags": ["O", "B-Y"], "lines": [3, 9]}
    (line,) = refusal(row, label_list=["O", "B-X"])
    assert line.startswith("a.jsonl:9: the label 'B-Y'")


def test_problems_are_collected_and_cut_at_twenty() -> None:
    bad = [{"tokens": ["a"], "tags": ["X"] * number} for number in range(2, 32)]
    assert len(refusal(*bad[:20])) == 20
    lines = refusal(*bad)
    assert len(lines) == 21
    assert lines[20] == "a.jsonl: ... and more; these are the first 20 problems"


# -- spans ----------------------------------------------------------------------------------------


def spans(text: str, *found: Any, field: str = "spans") -> list[tuple[str, str]]:
    (fields,) = run({"text": text, field: list(found)})
    assert fields["text"] == text
    assert fields["tokens"] == [text[start:end] for start, end in fields["offsets"]]
    return list(zip(fields["tokens"], fields["tags"], strict=True))


def span(start: Any, end: Any, label: Any = "X", **more: Any) -> dict[str, Any]:
    return {"start": start, "end": end, "label": label, **more}


@pytest.mark.parametrize("field", ["spans", "entities", "label"])
@pytest.mark.parametrize("found", [[0, 12, "PER"], span(0, 12, "PER", text="Barack Obama")])
def test_spans_become_bio_tags(field: str, found: Any) -> None:
    assert spans("Barack Obama spoke.", found, field=field) == [
        ("Barack", "B-PER"),
        ("Obama", "I-PER"),
        ("spoke", "O"),
        (".", "O"),
    ]


def test_a_span_within_a_word_cuts_it() -> None:
    whole = [span(start, start + 3) for start in range(12, 36, 4)]
    tags = spans("Berlinreise Ulm Rom Lom Ulm Rom Lom", span(0, 6, "LOC"), span(6, 9, "X"), *whole)
    assert tags[:3] == [("Berlin", "B-LOC"), ("rei", "B-X"), ("se", "O")]


def test_adjacent_spans_stay_apart_in_any_order() -> None:
    tags = spans("北京上海", span(2, 4), span(0, 2))
    assert tags == [("北", "B-X"), ("京", "I-X"), ("上", "B-X"), ("海", "I-X")]


def test_white_space_at_the_borders_of_a_span_is_no_word() -> None:
    assert spans("in Rome now", span(2, 8)) == [("in", "O"), ("Rome", "B-X"), ("now", "O")]


def test_a_text_of_another_name_is_kept_beside_its_offsets() -> None:
    (fields,) = run({"sentence": "a b", "spans": [], "text": "no"}, text_column_name="sentence")
    assert fields["text"] == "a b"
    assert fields["offsets"] == [[0, 1], [2, 3]]


def test_a_text_without_spans_is_outside() -> None:
    assert spans("a b") == [("a", "O"), ("b", "O")]


NO_SPAN = 'in spans is no span; write {"start": 0, "end": 5, "label": "PER"} or [0, 5, "PER"]'
COUNT = "count characters, not bytes, from 0"


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (span(0, 7), f"span X [0, 7) leaves the text, which has 6 characters; {COUNT}"),
        (span(-1, 2), f"span X [-1, 2) leaves the text, which has 6 characters; {COUNT}"),
        (
            span(2, 2),
            "span X [2, 2) ends before it holds a character; write an end greater than the start",
        ),
        (span(3, 4), "span X [3, 4) holds only white space; delete it, or fix its borders"),
        (
            span(0, 3, text="def"),
            f"span X [0, 3) is 'abc' in the text, not 'def'; {COUNT}",
        ),
        (span("0", 3), f"{span('0', 3)!r} {NO_SPAN}"),
        (span(True, 3), f"{span(True, 3)!r} {NO_SPAN}"),
        (span(0, 3, None), f"{span(0, 3, None)!r} {NO_SPAN}"),
        ([0, 3], f"[0, 3] {NO_SPAN}"),
        ("abc", f"'abc' {NO_SPAN}"),
    ],
)
def test_a_span_that_would_mislabel_is_refused(found: Any, message: str) -> None:
    assert refusal({"text": "abc de", "spans": [found]}) == [f"a.jsonl:1: {message}"]


def test_overlapping_spans_are_refused() -> None:
    rows = {"text": "abcdef", "spans": [span(2, 5, "Y"), span(0, 3), [5, 6, "Z"]]}
    assert refusal(rows) == ["a.jsonl:1: span X [0, 3) and span Y [2, 5) overlap; keep one of them"]


def test_labels_of_spans_are_held_against_the_label_list() -> None:
    (line,) = refusal({"text": "a b", "spans": [span(0, 3)]}, label_list=["O", "B-X"])
    assert line.startswith("a.jsonl:1: token 2: the label 'I-X' is not in data.label_list")


# -- schemes and labels ---------------------------------------------------------------------------


def test_any_scheme_becomes_bio_and_nulls_stay_where_they_are() -> None:
    given = tagged(["I-X", None, "I-X", "B-X"], [None, "O"])
    converted = to_bio_records(given, Tagging(Scheme.IOB1))
    assert [record.fields["tags"] for record in converted] == [
        ["B-X", None, "I-X", "B-X"],
        [None, "O"],
    ]
    assert [record.line for record in converted] == [1, 2]
    assert given[0].fields["tags"][0] == "I-X"


def test_tags_without_a_scheme_stay() -> None:
    given = tagged(["I-X", "NOUN"])
    assert to_bio_records(given, Tagging(Scheme.NONE)) == given


def test_what_breaks_the_scheme_is_refused_by_its_place() -> None:
    with pytest.raises(BadInput) as caught:
        to_bio_records(tagged(["O", None, "I-X"], ["O"], ["I-Y"]), Tagging(Scheme.BIO))
    assert str(caught.value).splitlines() == [
        "a.jsonl:1: token 3: 'I-X' continues no entity after 'O'; "
        "fix the tag; the training set is read as BIO",
        "a.jsonl:3: token 1: 'I-Y' continues no entity at the beginning; "
        "fix the tag; the training set is read as BIO",
    ]


def test_scheme_problems_are_cut_at_twenty() -> None:
    with pytest.raises(BadInput) as caught:
        to_bio_records(tagged(*[["I-X"]] * 30), Tagging(Scheme.BIO))
    assert len(caught.value.problems) == 21
    assert "... and more" in str(caught.value)


def test_each_type_has_both_labels_after_o() -> None:
    given = tagged(["B-e", "I-d", "B-b-c", "O", "I-a", None])
    types = ["a", "b-c", "d", "e"]
    assert label_set(given) == ["O", *(f"{prefix}-{name}" for name in types for prefix in "BI")]
    assert label_set(tagged(["B-a"])) == ["O", "B-a", "I-a"]


def test_plain_tags_are_sorted_after_o() -> None:
    assert label_set(tagged(["NOUN", "ADJ", "B-"])) == ["ADJ", "B-", "NOUN"]
    assert label_set(tagged(["PER", "O", "LOC"])) == ["O", "LOC", "PER"]
    assert label_set(tagged([None])) == []


# -- published corpora ----------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.parametrize(
    ("folder", "file", "scheme", "types"),
    [
        ("wnut17", "emerging.dev.conll", "BIO", 6),
        ("broad_twitter_corpus", "btc.dev", "BIO", 3),
        ("broad_twitter_corpus", "btc.test", "BIO", 3),
        ("ncbi_disease", "devel.tsv", "BIO", 1),
        ("wikigold", "wikigold.conll.txt", "IOB1", 4),
        ("uner_chinese_gsdsimp", "zh_gsdsimp-ud-dev.iob2", "BIO", 3),
    ],
)
def test_published_corpora_have_their_types(
    real_data: Callable[[str], Path], folder: str, file: str, scheme: str, types: int
) -> None:
    columns = {"text_column_name": 1, "label_column_name": 2} if "uner" in folder else {}
    raw = read_records([str(real_data(folder) / file)], ReadOptions(**columns))
    asked = {"text_column_name": None, "label_column_name": None} | columns
    given = normalise(raw, **asked, label_list=None, split="train")
    assert detect_scheme(tag_sequences(given)) == scheme
    converted = to_bio_records(given, Tagging(Scheme(scheme)))
    assert len(label_set(converted)) == 1 + 2 * types
    assert [len(r.fields["tags"]) for r in converted] == [len(r.fields["tokens"]) for r in raw]


@pytest.mark.real
def test_the_tags_of_ewt_are_the_17_of_ud(real_data: Callable[[str], Path]) -> None:
    path = real_data("ud_english_ewt") / "en_ewt-ud-dev.conllu"
    raw = read_records([str(path)], ReadOptions())
    given = normalise(
        raw, text_column_name=None, label_column_name=None, label_list=None, split="validation"
    )
    assert detect_scheme(tag_sequences(given)) == Scheme.NONE
    assert len(label_set(given)) == 17
