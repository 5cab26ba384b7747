"""What holds for every format: which one a file has, bytes that are refused, and the collecting."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from bigft.config.errors import BadInput
from bigft.data.formats import (
    FORMATS,
    ReadOptions,
    columns,
    detect_format,
    json_rows,
    read_records,
    stream_records,
    tables,
    text,
)
from bigft.data.formats.base import text_lines

CONLLU_LINE = "1\tEU\teu\tPROPN\tNNP\t_\t0\troot\t_\t_\n"


def refusal(*files: Path, **options: object) -> list[str]:
    with pytest.raises(BadInput) as caught:
        read_records([str(file) for file in files], ReadOptions(**options))
    return str(caught.value).splitlines()


@pytest.mark.parametrize(
    ("name", "text", "format"),
    [
        ("a.txt", "EU B-ORG\n", "conll"),
        ("a.iob2", "# sent_id = 1\n1\tEU\tB-ORG\t-\t-\n", "conll"),
        ("a.conll", "[ O\n0 O\n] O\n", "conll"),
        ("a.conll", "{ O\n} O\n", "conll"),
        ("a.conll", "[\tO\n", "conll"),
        ("a.txt", "# sent_id = 1\n# text = EU\n" + CONLLU_LINE, "conllu"),
        ("a.txt", CONLLU_LINE.replace("1", "1-2", 1), "conllu"),
        ("a.txt", "# global.columns = ID FORM NER\n1\tEU\tB-ORG\n", "conllu"),
        ("a.conllu", "1\tEU\n", "conllu"),
        ("a.txt", '[\n {"a": 1}]', "json"),
        ("a.txt", '{\n "data": [\n{}]}', "json"),
        ("a.txt", '{"data": [{}]}', "json"),
        ("a.json", '{"a": 1}\n{"a": 2}\n', "jsonl"),
        ("a.txt", '\n{"a": 1}\n{"a": 2}\n', "jsonl"),
        ("a.jsonl", '{"a": }\n{"a": 2}\n', "jsonl"),
        ("a.json", "[1, 2]", "json"),
        ("a.JSONL", "{a: 1}\n", "jsonl"),
        ("a.csv", "text,label\n1\tEU\n", "csv"),
        ("a.csv", CONLLU_LINE, "csv"),
        ("a.tsv", "text\tlabel\nEU\tB-ORG\n\n", "tsv"),
        ("a.tsv", "EU\tB-ORG\n\nBonn\tB-LOC\n", "conll"),
        ("a.tsv", "EU\tB-ORG\n \t\nBonn\tB-LOC\n", "conll"),
        ("a.txt", "-DOCSTART- O\n\n# id = 1\nEU B-ORG\n" + "a O\n" * 30 + "broken\n", "conll"),
        ("a.txt", "EU rejects German call\tB\nto boycott\tI\n", "conll"),
        ("a.txt", "EU rejects German call\nto boycott British lamb .\n", "text"),
        ("a.txt", "Ein\n\nWort\n\n", "text"),
        ("a.txt", "我来到北京\n\n他说\n", "text"),
        ("a.md", "# A title\n\nA text\n", "conll"),
    ],
)
def test_content_decides_the_format_then_the_suffix(
    tmp_path: Path, name: str, text: str, format: str
) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert detect_format(str(tmp_path / name)) == format
    assert format in FORMATS


def test_a_stated_format_is_not_guessed(tmp_path: Path) -> None:
    (tmp_path / "a").write_text(CONLLU_LINE)
    (record,) = read_records([str(tmp_path / "a")], ReadOptions(format="conll", text_column_name=1))
    assert record.fields["ner_tags"] == ["_"]


def test_indices_run_on_over_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a O\n\nb O\n")
    (tmp_path / "b").write_text('{"tokens": ["c"]}\n')
    records = read_records([str(tmp_path / "a"), str(tmp_path / "b")], ReadOptions())
    assert [(record.index, Path(record.file).name, record.line) for record in records] == [
        (0, "a", 1),
        (1, "a", 3),
        (2, "b", 1),
    ]


def test_max_samples_holds_over_files_and_reads_no_further(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a O\n\nb O\n")
    (tmp_path / "b").write_text("c O\n\nd O O O\n")
    files = [str(tmp_path / "a"), str(tmp_path / "b")]
    assert len(read_records(files, ReadOptions(max_samples=2))) == 2
    assert len(read_records(files, ReadOptions(max_samples=3))) == 3
    assert len(refusal(*map(Path, files))) == 1


@pytest.mark.parametrize(
    ("format", "reader", "line"),
    [
        ("conll", columns, "a\tO\n\n"),
        ("conllu", columns, CONLLU_LINE + "\n"),
        ("jsonl", json_rows, '{"a": 1}\n'),
        ("csv", tables, "a,b\n"),
        ("tsv", tables, "a\tb\n"),
        ("text", text, "a b\n"),
        ("parallel", text, "a b\n"),
    ],
)
def test_files_are_read_as_a_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str, reader: ModuleType, line: str
) -> None:
    (tmp_path / "a").write_text(line * 1000)
    seen = []

    def watched(path: str) -> Iterator[object]:
        for item in text_lines(path):
            seen.append(item)
            yield item

    monkeypatch.setattr(reader, "text_lines", watched)
    stream = stream_records([str(tmp_path / "a")] * 2, ReadOptions(format=format))
    for _ in range(5):
        next(stream)
    assert 5 <= len(seen) < 20


def test_a_stream_ends_with_the_problems_of_all_its_files(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a O\n\nb\n\nc O\n")
    (tmp_path / "b").write_text("d O\n")
    files = [str(tmp_path / name) for name in ("a", "none", "b")]
    seen = []
    with pytest.raises(BadInput) as caught:
        for record in stream_records(files, ReadOptions()):
            seen.append(record)
    assert [(record.index, record.fields["tokens"]) for record in seen] == [
        (0, ["a"]),
        (1, ["c"]),
        (2, ["d"]),
    ]
    assert [problem.where for problem in caught.value.problems] == [f"{files[0]}:3", files[1]]


# -- bytes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["conll", "conllu", "json", "jsonl"])
def test_a_byte_order_mark_is_refused(tmp_path: Path, format: str) -> None:
    text = {"conll": "a O\n", "conllu": CONLLU_LINE, "json": '[{"a": 1}]', "jsonl": '{"a": 1}\n'}
    path = tmp_path / "a"
    path.write_bytes(b"\xef\xbb\xbf" + text[format].encode())
    assert detect_format(str(path)) == format
    assert refusal(path) == [f"{path}:1: a byte order mark (BOM); save it as UTF-8 without BOM"]


def test_bad_utf8_names_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes("é O\nb O\n".encode() + "naïve O\n".encode("latin-1"))
    assert refusal(path) == [f"{path}:3: byte 11 of the file (0xef) is not UTF-8; save it as UTF-8"]


def test_a_nul_byte_names_its_place(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"a O\nb\0 O\n")
    assert refusal(path) == [f"{path}:2: a NUL byte at byte 5 of the file; save it as UTF-8 text"]


def test_utf16_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.conll"
    path.write_bytes("a O\nb O\n".encode("utf-16"))
    assert refusal(path) == [f"{path}:1: UTF-16; save it as UTF-8"]
    path.write_bytes("a O\nb O\n".encode("utf-16-be"))  # without a mark
    assert all(line.endswith("save it as UTF-8 text") for line in refusal(path))


# -- paths ----------------------------------------------------------------------------------------


def test_a_missing_file_names_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "train.conll").write_text("a O\n")
    missing = tmp_path / "trian.conll"
    assert refusal(missing) == [f"{missing}: no such file; did you mean train.conll?"]
    missing = tmp_path / "xyz"
    assert refusal(missing) == [f"{missing}: no such file; its directory {tmp_path} exists"]
    missing = tmp_path / "no" / "a"
    assert refusal(missing) == [
        f"{missing}: no such file; there is no directory {tmp_path / 'no'} either"
    ]


def test_a_directory_names_a_file_in_it(tmp_path: Path) -> None:
    told = f"{tmp_path}: a directory, not a file; name {{}}, or a data set's whole directory as "
    told += "data.dataset_name"
    (tmp_path / "README.md").write_text("# Data\n")
    (tmp_path / "c").mkdir()
    assert refusal(tmp_path) == [told.format("its files")]
    (tmp_path / "b.conll").write_text("a O\n")
    (tmp_path / "a.conll").write_text("a O\n")
    shown = [told.format("a file in it, such as a.conll")]
    assert refusal(tmp_path) == shown
    assert refusal(tmp_path, format="conll") == shown


@pytest.mark.parametrize("format", ["auto", "conll", "conllu", "jsonl", "text"])
def test_a_file_without_samples_is_refused(tmp_path: Path, format: str) -> None:
    path = tmp_path / "a"
    path.write_text("\n\t\n")
    name = "conll" if format == "auto" else format
    assert refusal(path, format=format) == [f"{path}: no sample in it (read as {name})"]


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.touch()
    assert refusal(path) == [f"{path}: an empty file"]
    assert refusal(path, format="conll") == [f"{path}: no sample in it (read as conll)"]


def test_problems_of_all_files_come_at_once(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a O\nb\n")
    (tmp_path / "c").write_text("a O\n\nb O O\n")
    lines = refusal(tmp_path / "a", tmp_path / "b", tmp_path / "c")
    assert [line.split(": ")[0] for line in lines] == [
        f"{tmp_path}/a:2",
        f"{tmp_path}/b",
        f"{tmp_path}/c:3",
    ]


def test_more_than_twenty_problems_are_cut(tmp_path: Path) -> None:
    path = tmp_path / "a"
    wrong = [f"b{number}\n" for number in range(21)]
    path.write_text("a O\n" + "".join(wrong[:20]))
    assert len(refusal(path)) == 20
    path.write_text("a O\n" + "".join(wrong))
    lines = refusal(path)
    assert lines[20:] == [f"{path}: ... and more; these are the first 20 problems"]


def test_what_is_wrong_alike_in_many_lines_is_told_once(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("a O\n" + "b\n" * 30)
    first, last = refusal(path)
    assert first.startswith(f"{path}:2: 1 column where the file has 2: 'b'; ")
    assert first.endswith(f" (19 more alike: {path}:3, {path}:4, {path}:5, ...)")
    assert last == f"{path}: ... and more; these are the first 20 problems"


def test_what_cannot_be_read_is_refused_by_its_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def deny(path: str, options: ReadOptions) -> None:
        raise PermissionError(13, "Permission denied", path)

    (tmp_path / "a").write_text("a O\n")
    monkeypatch.setitem(FORMATS, "conll", deny)
    assert refusal(tmp_path / "a") == [f"{tmp_path}/a: cannot be read (Permission denied)"]
