"""JSON and JSON Lines: rows with their lines, and messages that say where a file breaks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from bigft.config.errors import BadInput
from bigft.data.formats import ReadOptions, read_records

FORMATS = pytest.mark.parametrize("name", ["json", "jsonl"])


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., list[tuple[int, object]]]:
    """(line, fields) of each row of a file of this text."""

    def read(text: str, format: str = "auto") -> list[tuple[int, object]]:
        (tmp_path / "a.txt").write_text(text, encoding="utf-8")
        records = read_records([str(tmp_path / "a.txt")], ReadOptions(format=format))
        return [(record.line, record.fields) for record in records]

    return read


def refusal(read: Callable[..., object], text: str, format: str = "auto") -> list[str]:
    with pytest.raises(BadInput) as caught:
        read(text, format)
    return [line.partition("a.txt:")[2] for line in str(caught.value).splitlines()]


def test_jsonl_counts_lines_and_passes_blank_ones(read: Callable[..., object]) -> None:
    text = '{"a": 1}\n\n  \n{"a": "\u2028x"}\r\n{"a": [null, 1.5]}'
    assert read(text) == [(1, {"a": 1}), (4, {"a": "\u2028x"}), (5, {"a": [None, 1.5]})]


def test_json_array_counts_lines(read: Callable[..., object]) -> None:
    text = '[\n {"a": 1}, {"b":\n [{}, "]"]},\n\n {"c": {"d": 2}}\n]\n'
    assert read(text) == [
        (2, {"a": 1}),
        (2, {"b": [{}, "]"]}),
        (5, {"c": {"d": 2}}),
    ]
    assert read('[{"a": 1}]') == [(1, {"a": 1})]


def test_json_object_holds_its_rows_under_data(read: Callable[..., object]) -> None:
    text = '{"version": [{"data": [3]}, 1],\n "data" : [\n{"a": 1},\n{"a": 2}], "x": "}"}'
    assert read(text) == [(3, {"a": 1}), (4, {"a": 2})]
    assert read('{"data": [{"a": 1}]}') == [(1, {"a": 1})]


def test_malformed_jsonl_names_line_and_column_of_each(read: Callable[..., object]) -> None:
    lines = refusal(read, '{"a": 1}\n{"a": }\n{"a": 2\n{"a": 3} x\n')
    assert lines == [
        "2:7: no JSON (Expecting value); write one JSON object a line",
        "3:8: no JSON (Expecting ',' delimiter); write one JSON object a line",
        "4:10: no JSON (Extra data); write one JSON object a line",
    ]


def test_malformed_json_names_line_and_column(read: Callable[..., object]) -> None:
    (line,) = refusal(read, '[{"a": 1},\n {"a": 2}\n {"a": 3}]')
    assert line == "3:2: no JSON (Expecting ',' delimiter); write one JSON array"


def test_concatenated_arrays_do_not_lose_the_second(read: Callable[..., object]) -> None:
    (line,) = refusal(read, '[{"a": 1}]\n[{"a": 2}]')
    assert line == "2:1: no JSON (Extra data); write one JSON array"


@FORMATS
def test_what_is_no_object_is_refused(read: Callable[..., object], name: str) -> None:
    values = ['{"a": 1}', "[]", '"text"', "5", "null", "true"]
    text = "\n".join(values) if name == "jsonl" else "[" + ",\n".join(values) + "]"
    kinds = ["an array", "a string", "a number", "null", "true or false"]
    assert refusal(read, text, name) == [
        f'{line}: {kind} where an object is expected; write {{"field": value, ...}}'
        for line, kind in enumerate(kinds, 2)
    ]


@FORMATS
def test_a_list_has_columns_without_names(read: Callable[..., object], name: str) -> None:
    values = ['["how far", "distance"]', '["hi", ["a", "b"]]']
    text = "\n".join(values) if name == "jsonl" else "[" + ",\n".join(values) + "]"
    assert read(text, name) == [
        (1, {"0": "how far", "1": "distance"}),
        (2, {"0": "hi", "1": ["a", "b"]}),
    ]


@FORMATS
def test_a_repeated_key_is_refused_at_every_depth(read: Callable[..., object], name: str) -> None:
    rows = ['{"a": 1, "b": 2, "a": 3}', '{"c": [{"d": 1, "d": 1}]}']
    text = "\n".join(rows) if name == "jsonl" else "[" + ",\n".join(rows) + "]"
    assert refusal(read, text, name) == [
        "1: the key 'a' stands twice in one object; rename or delete one of the two",
        "2: the key 'd' stands twice in one object; rename or delete one of the two",
    ]


def test_two_arrays_under_data_are_refused(read: Callable[..., object]) -> None:
    with pytest.raises(BadInput, match="the key 'data' stands twice; join the arrays"):
        read('{"data": [{"a": 1}], "data": [{"a": 2}]}')


def test_an_object_without_rows_names_its_keys(read: Callable[..., object]) -> None:
    with pytest.raises(BadInput, match=r"an object without an array under 'data' \(keys: x, y\)"):
        read('{\n"x": [],\n"y": 1}')


def test_rows_may_have_a_field_of_the_name_data(read: Callable[..., object]) -> None:
    text = '{"data": ["q", "a"], "id": 1}\n{"data": [], "id": 2}\n'
    expected = [(1, {"data": ["q", "a"], "id": 1}), (2, {"data": [], "id": 2})]
    assert read(text) == expected
    assert read(text, "jsonl") == expected
    assert refusal(read, text, "json") == [
        "2:1: no JSON (Extra data); write one JSON array; one object a line is data.format=jsonl"
    ]


@pytest.mark.parametrize("opening", ['{"a": ', "["])
def test_brackets_beyond_all_measure_are_refused_by_line(
    read: Callable[..., object], opening: str
) -> None:
    """In time, too: Python's own limit is an error of its own kind, or none a little below it."""
    closing = "}" if opening.startswith("{") else "]"
    for depth in (600, 100_000):
        deep = '{"x": ' + opening * depth + "1" + closing * depth + "}"
        problem = "brackets within brackets, more than 500 deep; write it flatter"
        assert refusal(read, f'{{"x": 1}}\n{deep}\n', "jsonl") == [f"2: {problem}"]
        assert refusal(read, deep)[0].endswith(problem)
        with pytest.raises(BadInput, match=problem):
            read(f"[{deep}]")
    flat = '{"x": [' + "[], " * 1000 + "[]]}"
    assert read(flat) == [(1, json.loads(flat))]


@pytest.mark.real
def test_squad_files_give_their_articles(real_data: Callable[[str], Path]) -> None:
    path = real_data("xquad") / "xquad.en.json"
    records = read_records([str(path)], ReadOptions(format="json"))
    document = json.loads(path.read_text(encoding="utf-8"))
    assert [record.fields for record in records] == document["data"]
    lines = path.read_text(encoding="utf-8").split("\n")
    assert all(lines[record.line - 1].lstrip().startswith("{") for record in records)
    questions = [paragraph["qas"] for r in records for paragraph in r.fields["paragraphs"]]
    assert sum(map(len, questions)) == 1190


@pytest.mark.real
@pytest.mark.parametrize(
    ("file", "num_records"),
    [
        ("gsm8k/train.first2500.jsonl", 2500),
        ("gsm8k/test.first500.jsonl", 500),
        ("self_instruct/seed_tasks.jsonl", 175),
        ("self_instruct/user_oriented_instructions.jsonl", 252),
    ],
)
def test_published_json_lines(
    real_data: Callable[[str], Path], file: str, num_records: int
) -> None:
    folder, name = file.split("/")
    records = read_records([str(real_data(folder) / name)], ReadOptions())
    assert len(records) == num_records


def test_one_line_with_a_list_under_data_that_holds_no_rows_is_a_row(
    read: Callable[..., object],
) -> None:
    assert read('{"data": [1, 2], "text": "a"}') == [(1, {"data": [1, 2], "text": "a"})]
    assert read('{"data": ["q"], "id": 1}\n') == [(1, {"data": ["q"], "id": 1})]
    assert read('{"data": [{"a": 1}], "version": 2}') == [(1, {"a": 1})]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('[{"a": 1},\n{"a": 2}]\n', "1: a JSON array, not an object a line; set data.format=json"),
        ('\n[\n{"a": 1}\n]\n', "2: a JSON array, not an object a line; set data.format=json"),
        ('{\n "a": 1\n}\n' * 9,
         "1: an object over several lines; write each object in one line (`jq -c . FILE`)"),
    ],
)  # fmt: skip
def test_json_that_is_no_json_lines_is_told_once(
    read: Callable[..., object], text: str, told: str
) -> None:
    assert refusal(read, text, "jsonl") == [told]
