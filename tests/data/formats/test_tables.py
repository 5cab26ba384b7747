"""CSV and TSV: rows with their lines, and the names of their fields."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bigft.config.errors import BadInput
from bigft.data.formats import ReadOptions, read_records, tables


def write(path: Path, text: str) -> str:
    path.write_bytes(text.encode())
    return str(path)


def rows(path: str, **options: Any) -> list[tuple[int, dict[str, Any]]]:
    return [(r.line, dict(r.fields)) for r in read_records([path], ReadOptions(**options))]


def refusal(path: str, **options: Any) -> list[str]:
    with pytest.raises(BadInput) as caught:
        read_records([path], ReadOptions(**options))
    return [line.removeprefix(path) for line in str(caught.value).splitlines()]


# -- CSV ----------------------------------------------------------------------------------------


def test_a_quoted_field_holds_commas_quotes_and_lines(tmp_path: Path) -> None:
    text = 'text,label\n"a, ""b""\nc\n",x\nd "e" f,\n\n"",y\n'
    expected = [
        (2, {"text": 'a, "b"\nc\n', "label": "x"}),
        (5, {"text": 'd "e" f', "label": ""}),
        (7, {"text": "", "label": "y"}),
    ]
    assert rows(write(tmp_path / "a.csv", text)) == expected
    assert rows(write(tmp_path / "b.csv", text.replace("\n", "\r\n"))) == expected


def test_a_column_that_is_named_by_number_says_that_no_row_names_them(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "a,b\nc,d\n")
    expected = [(1, {"0": "a", "1": "b"}), (2, {"0": "c", "1": "d"})]
    assert rows(path, text_column_name=0) == expected
    assert rows(path, label_column_name=1) == expected
    assert rows(path, text_column_name="a", label_column_name="b") == [(2, {"a": "c", "b": "d"})]


@pytest.mark.parametrize(
    ("text", "refused"),
    [
        (
            'a,b\n1,2\n3\n4,5,6\n"7,8"\n',
            [
                ":3: 1 field where the first row has 2; {quote}",
                ":4: 3 fields where the first row has 2; {quote}",
                ":5: 1 field where the first row has 2; {quote}",
            ],
        ),
        ("a,b,a,b\n", [f":1: 2 columns are named '{name}'; {{again}}" for name in "ab"]),
        ('a\n1\n"2" 3\n4\n', [":3: no CSV (',' expected after '\"'); {close}"]),
        ('a\n1\n"2\n3\n', [":3: no CSV (unexpected end of data); {close}"]),
        ("a\n1\r2\n", [":2: no CSV (new-line character seen in unquoted field); {close}"]),
        ("a\n1\n\0\n3,3\n", [":3: a NUL byte at byte 4 of the file; ", ":4: 2 f"]),
        ("\ufeffa\n1,1\n", [":1: a byte order mark (BOM); save it as UTF-8 without BOM"]),
        ("a,b\n", [": no sample in it (read as csv)"]),
    ],
)  # fmt: skip
def test_what_is_no_table_is_refused_by_its_line(
    tmp_path: Path, text: str, refused: list[str]
) -> None:
    fixes = {
        "quote": 'put a field that holds commas in "quotes"',
        "again": "rename all but one",
        "close": 'close every quote, and write "" for a quote within a quoted field',
    }
    lines = refusal(write(tmp_path / "a.csv", text), format="csv")
    assert len(lines) == len(refused)
    for line, expected in zip(lines, refused, strict=True):
        assert line.startswith(expected.format(**fixes))


def test_bad_utf8_within_a_quoted_field_is_refused_and_lines_stay_right(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'a,b\n"1\n\xff\n2",3\n4\n')
    assert [line.split(";")[0] for line in refusal(str(path))] == [
        ":3: byte 7 of the file (0xff) is not UTF-8",
        ":5: 1 field where the first row has 2",
    ]


def test_a_field_may_be_longer_than_pythons_own_limit(tmp_path: Path) -> None:
    csv.field_size_limit(default := 1 << 17)
    long = "a" * (default + 1)
    assert rows(write(tmp_path / "a.csv", f"text\n{long}\n")) == [(2, {"text": long})]


def test_a_quote_that_is_never_closed_takes_in_no_whole_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "MAX_FIELD", 100)
    path = write(tmp_path / "a.csv", 'a\n1\n"2\n' + "3\n" * 200)
    (line,) = refusal(path)
    assert line.startswith(":3: no CSV (field larger than field limit (100)); close every quote")


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        (
            {"text_column_name": "txt", "label_column_name": "b"},
            [
                ": data.text_column_name: no column 'txt'; there are text, tag; did you mean text?",
                ": data.label_column_name: no column 'b'; there are text, tag; write one of these",
            ],
        ),
        (
            {"text_column_name": 0, "label_column_name": 2},
            [": data.label_column_name: no column 2; there are 0, 1; write one of these"],
        ),
        (
            {"text_column_name": 0, "label_column_name": "tag"},
            [": data.label_column_name: no column 'tag'; there are 0, 1; write one of these"],
        ),
    ],
)
def test_a_column_that_is_not_there_is_refused_by_its_key(
    tmp_path: Path, options: dict[str, Any], refused: list[str]
) -> None:
    assert refusal(write(tmp_path / "a.csv", "text,tag\na,b\n"), **options) == refused


def test_banking77_has_as_many_rows_as_published(real_data: Callable[[str], Path]) -> None:
    folder = real_data("banking77")
    for name, num_rows in (("train.csv", 10_003), ("test.csv", 3_080)):
        read = rows(str(folder / name))
        assert len(read) == num_rows
        assert {len(fields) for _, fields in read} == {2}
    assert len({fields["category"] for _, fields in read}) == 77


# -- TSV ----------------------------------------------------------------------------------------


def test_a_quote_in_a_tsv_file_is_a_character(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", 'text\tlabel\n"a\tb"\n\n c ""\t\r\n')
    assert rows(path, format="tsv") == [
        (2, {"text": '"a', "label": 'b"'}),
        (4, {"text": ' c ""', "label": ""}),
    ]


def test_ragged_rows_of_a_tsv_file_are_refused_by_their_lines(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "a\tb\n1\n1\t2\t3\na\rb\t2\n")
    assert refusal(path) == [
        ":2: 1 field where the first row has 2; write a TAB between two fields and nowhere else",
        ":3: 3 fields where the first row has 2; write a TAB between two fields and nowhere else",
        ":4: a carriage return within the line; end lines with LF or CRLF",
    ]


def test_tatoeba_reads_line_by_line_with_its_quotes(real_data: Callable[[str], Path]) -> None:
    path = real_data("tatoeba_en_zh") / "cmn.every3rd.txt"
    read = rows(str(path), format="tsv", text_column_name=0, label_column_name=1)
    lines = path.read_text(encoding="utf-8").splitlines()
    assert len(read) == len(lines) == 9_719
    for (number, fields), line in zip(read, lines, strict=True):
        assert "\t".join([fields["0"], fields["1"], fields["2"]]) == line == lines[number - 1]
    assert any(fields["0"].startswith('"') for _, fields in read)


def test_sib200_is_a_table_with_names(real_data: Callable[[str], Path]) -> None:
    read = rows(str(real_data("sib200") / "zho_Hans" / "test.tsv"))
    assert len(read) == 204
    assert {*read[0][1]} == {"index_id", "category", "text"}


# -- a table without a row of names -------------------------------------------------------------


@pytest.mark.parametrize(("name", "separator"), [("a.tsv", "\t"), ("a.csv", ",")])
@pytest.mark.parametrize("first", ["Hello", "Hi"])
def test_a_first_row_of_no_known_name_is_told_once(
    tmp_path: Path, name: str, separator: str, first: str
) -> None:
    text = f"{first}{separator}Hi\n" + f"One{separator}Eins\n" * 30
    path = write(tmp_path / name, text)
    known = frozenset({"source", "target"})
    assert refusal(path, columns=known, of_words=False) == [
        f":1: the first row is taken for the names of the columns: {first}, Hi; known are source, "
        "target; set data.text_column_name=0 data.label_column_name=1 if it is a sample, else to "
        "two of these names"
    ]
    numbered = rows(path, columns=known, text_column_name=0, label_column_name=1, of_words=False)
    assert numbered[0] == (1, {"0": first, "1": "Hi"})


def test_the_way_out_fits_the_table_and_the_task(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "Hello\nBye\n")
    (line,) = refusal(path, columns=frozenset({"text"}), of_words=False)
    assert "; set data.text_column_name=0 if it is a sample, else to" in line
    (line,) = refusal(path, columns=frozenset({"tokens"}))
    assert line.endswith("; a word and its label a line are data.format=conll")


def test_a_row_with_a_known_name_names_the_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "a.csv", "text,topic\nx,y\n")
    assert rows(path, columns=frozenset({"text"})) == [(2, {"text": "x", "topic": "y"})]
    assert rows(path, columns=frozenset(), text_column_name="topic")[0][0] == 2
    path = write(tmp_path / "b.csv", "a,b,c,d\n")
    (line,) = refusal(path, columns=frozenset({"text"}), of_words=False)
    numbers = "data.text_column_name and data.label_column_name to two numbers from 0 to 3"
    assert f"; set {numbers} if it is a sample, else to two of these names" in line


@pytest.mark.parametrize(("mark", "name"), [(";", "semicolons"), ("\t", "TABs"), ("|", "bars")])
@pytest.mark.parametrize("asked", [None, "text"])
def test_a_table_with_another_separator_is_told_which(
    tmp_path: Path, mark: str, name: str, asked: str | None
) -> None:
    path = write(tmp_path / "a.csv", f"text{mark}label\na{mark}b\n")
    known = frozenset({"text", "label"})
    (line,) = refusal(path, columns=known, text_column_name=asked, of_words=False)
    assert line.endswith(
        f"; its fields seem to be separated by {name}: separate them by commas (data.format=csv) "
        "or TABs (data.format=tsv)"
    )
