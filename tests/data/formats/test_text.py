"""Plain text by lines, paragraphs and documents; files in pairs."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bigft.config.errors import BadInput
from bigft.data.formats import ReadOptions, read_records

TEXT = "\n  One line.  \nAnother\tone.\n \n\nA\u2028second.\r\n\nThe end."


def write(path: Path, text: str) -> str:
    path.write_bytes(text.encode())
    return str(path)


def texts(*paths: str, **options: Any) -> list[tuple[str, int, str]]:
    records = read_records(paths, ReadOptions(format="text", **options))
    assert [record.index for record in records] == list(range(len(records)))
    return [(Path(r.file).name, r.line, r.fields["text"]) for r in records]


def refusal(*paths: str, **options: Any) -> list[str]:
    with pytest.raises(BadInput) as caught:
        read_records(paths, ReadOptions(**options))
    return str(caught.value).splitlines()


# -- text ---------------------------------------------------------------------------------------


def test_lines_are_kept_as_they_are_and_blank_ones_are_none(tmp_path: Path) -> None:
    assert texts(write(tmp_path / "a", TEXT)) == [
        ("a", 2, "  One line.  "),
        ("a", 3, "Another\tone."),
        ("a", 6, "A\u2028second."),
        ("a", 8, "The end."),
    ]


def test_paragraphs_are_separated_by_blank_lines(tmp_path: Path) -> None:
    assert texts(write(tmp_path / "a", TEXT), sample_by="paragraph") == [
        ("a", 2, "  One line.  \nAnother\tone."),
        ("a", 6, "A\u2028second."),
        ("a", 8, "The end."),
    ]


def test_a_document_is_a_file(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a", TEXT), write(tmp_path / "b", "x\n\n\n")
    assert texts(a, b, sample_by="document") == [
        ("a", 2, "  One line.  \nAnother\tone.\n \n\nA\u2028second.\n\nThe end."),
        ("b", 1, "x"),
    ]


@pytest.mark.parametrize("sample_by", ["line", "paragraph", "document"])
def test_bytes_that_are_no_text_and_files_without_any_are_refused(
    tmp_path: Path, sample_by: str
) -> None:
    bad, empty = tmp_path / "bad", write(tmp_path / "empty", " \n\n")
    bad.write_bytes(b"a\n\xff\n\0\n")
    assert refusal(str(bad), empty, format="text", sample_by=sample_by) == [
        f"{bad}:2: byte 2 of the file (0xff) is not UTF-8; save it as UTF-8",
        f"{bad}:3: a NUL byte at byte 4 of the file; save it as UTF-8 text",
        f"{empty}: no sample in it (read as text)",
    ]


def test_tinyshakespeare_loses_no_character(real_data: Callable[[str], Path]) -> None:
    path = real_data("tinyshakespeare") / "input.txt"
    text = path.read_text(encoding="utf-8")
    read = {
        by: [
            record.fields["text"] for record in read_records([str(path)], ReadOptions(sample_by=by))
        ]
        for by in ("line", "paragraph", "document")
    }
    assert read["line"] == [line for line in text.split("\n") if line]
    assert read["paragraph"] == re.split("\n\n+", text.removesuffix("\n"))
    assert read["document"] == [text.removesuffix("\n")]


# -- pairs of files -----------------------------------------------------------------------------


def pairs(*paths: str) -> list[tuple[str, int, str, str]]:
    records = read_records(paths, ReadOptions(format="parallel"))
    return [(r.file, r.line, r.fields["source"], r.fields["target"]) for r in records]


def test_line_n_of_one_file_goes_with_line_n_of_the_other(tmp_path: Path) -> None:
    en = write(tmp_path / "a.en", "one\n\ntwo\n")
    de = write(tmp_path / "a.de", "eins\n \nzwei")
    en2, de2 = write(tmp_path / "b.en", "three\n"), write(tmp_path / "b.de", "drei\n")
    assert pairs(en, de, en2, de2) == [
        (en, 1, "one", "eins"),
        (en, 3, "two", "zwei"),
        (en2, 1, "three", "drei"),
    ]


def test_an_odd_number_of_files_is_refused(tmp_path: Path) -> None:
    files = [write(tmp_path / name, "x\n") for name in "abc"]
    assert refusal(*files, format="parallel") == [
        f"{files[2]}: no partner for it: 3 files do not make pairs; "
        "name source, target, source, target, ..."
    ]


def test_files_of_different_lengths_are_refused_at_the_first_line_too_many(tmp_path: Path) -> None:
    long, short = write(tmp_path / "long", "a\nb\nc\n"), write(tmp_path / "short", "a\n")
    expected = [
        f"{long}:2: {short} has 1 lines and no partner for this one; "
        "line n of one must translate line n of the other"
    ]
    assert refusal(long, short, format="parallel") == expected
    assert refusal(short, long, format="parallel") == expected


def test_an_empty_side_and_bad_bytes_are_refused_by_file_and_line(tmp_path: Path) -> None:
    source, target = write(tmp_path / "s", "a\n\nc\n\0\n"), tmp_path / "t"
    target.write_bytes(b"a\nb\n \n\xff\n")
    assert refusal(source, str(target), format="parallel") == [
        f"{source}:2: an empty line where {target} has text; translate it, or delete both lines",
        f"{target}:3: an empty line where {source} has text; translate it, or delete both lines",
        f"{source}:4: a NUL byte at byte 5 of the file; save it as UTF-8 text",
        f"{target}:4: byte 6 of the file (0xff) is not UTF-8; save it as UTF-8",
    ]


def test_a_missing_half_is_named(tmp_path: Path) -> None:
    source = write(tmp_path / "s.en", "a\n")
    (line,) = refusal(source, str(tmp_path / "s.dee"), format="parallel")
    assert line == f"{tmp_path}/s.dee: no such file; did you mean s.en?"
