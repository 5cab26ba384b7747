"""SQuAD's files: every question with its context and its own line, and where a file breaks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bigft.config.errors import BadInput
from bigft.data.formats import ReadOptions, detect_format, read_records

ANSWER = {"text": "Ulm", "answer_start": 0}
FILE = """\
{"version": "v2.0", "data": [
 {"title": "a [b", "year": 1, "paragraphs": [
  {"context": "Ulm is old.", "id": "x", "qas": [
   {"id": "1", "question": "Which?", "answers": [{"text": "Ulm", "answer_start": 0}]}, {
    "id": "2", "question": "What?", "is_impossible": true, "answers": []}]},
  {"qas":
   [{"question": "How?", "id": "3", "answers": [], "context": "ignored"}], "context": "}]\\u00e4"}
 ]},
 {"paragraphs": []}, {"paragraphs": [{"context": "c", "qas": []}]},

 {"paragraphs": [{"context": "c", "qas": [{"id": 4}]}]}]}
"""


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., list[tuple[int, Any]]]:
    def read(text: str, format: str = "auto") -> list[tuple[int, Any]]:
        (tmp_path / "a.json").write_text(text, encoding="utf-8")
        records = read_records([str(tmp_path / "a.json")], ReadOptions(format=format))
        return [(record.line, record.fields) for record in records]

    return read


def refusal(read: Callable[..., object], text: str, format: str = "squad") -> list[str]:
    with pytest.raises(BadInput) as caught:
        read(text, format)
    return [line.partition("a.json")[2] for line in str(caught.value).splitlines()]


@pytest.mark.parametrize("format", ["auto", "squad"])
def test_each_question_has_its_context_and_its_line(
    read: Callable[..., list[tuple[int, Any]]], format: str
) -> None:
    found = read(FILE, format)
    assert [line for line, _ in found] == [4, 4, 7, 11]
    assert found[0][1] == {
        "id": "1", "question": "Which?", "answers": [ANSWER], "context": "Ulm is old.",
    }  # fmt: skip
    assert found[1][1]["is_impossible"] is True
    assert found[2][1]["context"] == "}]ä"
    assert found[3][1] == {"id": 4, "context": "c"}


def test_a_file_in_one_line_is_one_too(read: Callable[..., list[tuple[int, Any]]]) -> None:
    text = json.dumps(json.loads(FILE))
    assert [(1, fields) for _, fields in read(FILE)] == read(text)


@pytest.mark.parametrize(
    ("text", "format"),
    [
        ('{"data": [{"paragraphs": []}]}', "squad"),
        ('{\n"data":\n [ {"title": "a \\" {[,", "n": -1.5e3,\n"paragraphs" : []}]}', "squad"),
        ('{"data": [{"title": {"a": 1}, "paragraphs": []}]}', "json"),
        ('{"data": [{"paragraph": []}]}', "json"),
        ('{"paragraphs": [], "data": [{}]}', "json"),
        ('{"data": [{"paragraphs": "one"}]}', "json"),
        ('{"text": "\\"data\\": [{\\"paragraphs\\": []"}\n{"text": "b"}', "jsonl"),
    ],
)
def test_a_file_is_known_by_the_paragraphs_of_its_first_article(
    tmp_path: Path, text: str, format: str
) -> None:
    (tmp_path / "a.json").write_text(text)
    assert detect_format(str(tmp_path / "a.json")) == format


LAYOUT = 'write {"data": [{"paragraphs": [{"context": "...", "qas": [...]}]}]}'


def test_what_is_not_as_squad_has_it_is_refused_by_line(read: Callable[..., object]) -> None:
    text = """{"data": [
{"title": "no paragraphs"},
7,
{"paragraphs": [
 {"context": "c"},
 {"context": 1, "qas": []},
 "c",
 {"context": "c", "qas": [
  "q"]}]},
{"paragraphs": [], "paragraphs": []}]}"""
    of_article = f"an article without an array `paragraphs`; {LAYOUT}"
    of_article += "; an array of questions is data.format=json"
    of_paragraph = f"a paragraph without a text `context` and an array `qas`; {LAYOUT}"
    assert refusal(read, text) == [
        f":2: {of_article}",
        f":3: {of_article}",
        f":5: {of_paragraph}",
        f":6: {of_paragraph}",
        f":7: {of_paragraph}",
        f":9: a question that is no object; {LAYOUT}",
        ":10: the key 'paragraphs' stands twice in one object; rename or delete one of the two",
    ]


def test_what_is_no_json_is_refused_by_line_and_column(read: Callable[..., object]) -> None:
    assert refusal(read, '{"data": [\n{"paragraphs": [}]}') == [
        ":2:17: no JSON (Expecting value); write one JSON object"
    ]
    assert refusal(read, '[{"question": "a"}]') == [
        f": no object with articles under 'data'; {LAYOUT}; an array of questions is "
        "data.format=json"
    ]


@pytest.mark.real
@pytest.mark.parametrize(
    ("file", "num_questions"),
    [
        ("xquad/xquad.en.json", 1190),
        ("xquad/xquad.zh.json", 1190),
        ("cmrc2018/cmrc2018_trial.json", 1002),
    ],
)
def test_published_files_are_read_whole(
    real_data: Callable[[str], Path], file: str, num_questions: int
) -> None:
    folder, name = file.split("/")
    path = real_data(folder) / name
    records = read_records([str(path)], ReadOptions())
    document = json.loads(path.read_text(encoding="utf-8"))
    expected = [
        {**question, "context": paragraph["context"]}
        for article in document["data"]
        for paragraph in article["paragraphs"]
        for question in paragraph["qas"]
    ]
    assert len(expected) == num_questions
    assert [record.fields for record in records] == expected
    lines = path.read_text(encoding="utf-8").split("\n")
    assert all("{" in lines[record.line - 1] for record in records)
