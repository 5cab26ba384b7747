"""`bigft predict RUN`: one JSON object per text, and what is refused."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import sys
import threading
from pathlib import Path
from typing import Any

import pyarrow
import pytest

from bigft.cli import main
from bigft.data.formats.files import create_data, open_data


def answers(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    assert main(["predict", "out", *words]) == 0
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_every_word_gets_a_tag_and_a_score(
    trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (answer,) = answers(capsys, "--text", "ann met bob.")
    assert answer["tokens"] == ["ann", "met", "bob", "."]
    assert len(answer["tags"]) == len(answer["scores"]) == 4
    assert set(answer["tags"]) <= {"O", "B-PER", "I-PER", "B-LOC", "I-LOC"}
    for entity in answer["entities"]:
        assert answer["text"][entity["start"] : entity["end"]] == entity["text"]


def test_texts_without_a_word_are_answered_too(
    trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    empty, found = answers(capsys, "--text", " ", "--text", "ann")
    assert (empty["text"], empty["tokens"], empty["entities"]) == (" ", [], [])
    assert found["tokens"] == ["ann"]


FILE = b'\xef\xbb\xbfann\n\n{"text": " bob"}\n  met\n'  # with a BOM, as some editors save it


def test_a_file_holds_lines_and_objects(
    trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("texts").write_bytes(FILE)
    texts = [answer["text"] for answer in answers(capsys, "--file", "texts")]
    assert texts == ["ann", " bob", "met"]


PACK = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress}
PACK["zst"] = lambda data: pyarrow.Codec("zstd").compress(data, asbytes=True)


@pytest.mark.parametrize("suffix", PACK)
def test_a_file_may_be_compressed(
    trained_run: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    Path("texts").write_bytes(PACK[suffix](FILE))  # whatever its name
    texts = [answer["text"] for answer in answers(capsys, "--file", "texts")]
    assert texts == ["ann", " bob", "met"]


def test_of_a_compressed_file_that_was_cut_what_is_there_is_answered(
    trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("texts.gz").write_bytes(gzip.compress(b"ann\nbob\n")[:-8])
    assert main(["predict", "out", "--file", "texts.gz"]) == 2
    printed = capsys.readouterr()
    assert [json.loads(line)["text"] for line in printed.out.splitlines()] == ["ann", "bob"]
    assert "texts.gz: cannot be decompressed (" in printed.err


def test_a_pipe_is_read_once_and_a_pointer_is_no_text(
    trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"ann\n")
    os.close(writing)
    (answer,) = answers(capsys, "--file", f"/dev/fd/{reading}")
    os.close(reading)
    assert answer["text"] == "ann"
    Path("texts").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    assert main(["predict", "out", "--file", "texts"]) == 2
    assert capsys.readouterr().err.startswith("texts: a Git LFS pointer: it stands in the place")


def test_texts_come_from_stdin_and_go_to_a_file(
    trained_run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(FILE)))
    assert answers(capsys, "--output", "answers.jsonl", "--batch-size", "2") == []
    lines = Path("answers.jsonl").read_text().splitlines()
    assert [json.loads(line)["text"] for line in lines] == ["ann", " bob", "met"]


@pytest.mark.parametrize("suffix", ["", ".gz", ".bz2", ".xz", ".zst"])
def test_input_and_output_may_be_compressed(
    trained_run: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    with create_data(f"texts{suffix}") as file:
        file.write(FILE.decode())
    assert answers(capsys, "--file", f"texts{suffix}", "--output", f"answers.jsonl{suffix}") == []
    with open_data(f"answers.jsonl{suffix}") as answered:
        assert [json.loads(line)["text"] for line in answered] == ["ann", " bob", "met"]
    assert (Path(f"answers.jsonl{suffix}").read_bytes()[:1] == b"{") is (suffix == "")
    assert main(["evaluate", "out", "--json", f"data.test_file={write_test(suffix)}"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"] == 1


def write_test(suffix: str) -> str:
    """A copy of the test set, compressed so."""
    with create_data(f"again.jsonl{suffix}") as file:
        file.write(Path("test.jsonl").read_text())
    return f"again.jsonl{suffix}"


def test_a_compressed_input_that_was_cut_is_answered_up_to_there(
    trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("texts.gz").write_bytes(gzip.compress(b"ann\n" * 9)[:-4])
    assert main(["predict", "out", "--file", "texts.gz"]) == 2
    assert capsys.readouterr().err.startswith("texts.gz: cannot be decompressed (")
    Path("texts.zip").write_bytes(b"PK\x03\x04\x14\x00")
    assert main(["predict", "out", "--file", "texts.zip"]) == 2
    assert capsys.readouterr().err.startswith("texts.zip: a ZIP archive")


def test_a_pipe_is_read_as_it_comes(trained_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo("pipe")
    writer = threading.Thread(target=Path("pipe").write_bytes, args=(FILE,))
    writer.start()
    assert [answer["text"] for answer in answers(capsys, "--file", "pipe")] == [
        "ann",
        " bob",
        "met",
    ]
    writer.join()


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"ann\n\xff\n", "texts:2: not UTF-8; save it as UTF-8"),
        (b'ann\n{"text": "bob"\n', "texts:2:15: no JSON (Expecting ',' delimiter); "
         "write one object a line"),
        (b'{"txt": "ann"}\n',
         'texts:1: no string `text` in the object; write {"text": "..."}'),
        (b'{"text": 5}\n', 'texts:1: no string `text` in the object; write {"text": "..."}'),
    ],
)  # fmt: skip
def test_lines_that_are_no_text(
    trained_run: Path, capsys: pytest.CaptureFixture[str], content: bytes, error: str
) -> None:
    Path("texts").write_bytes(content)
    assert main(["predict", "out", "--file", "texts"]) == 2
    assert capsys.readouterr().err == f"{error}\n"


def test_lines_that_cannot_be_used_cost_no_other_line_its_answer(
    trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the same batch or another, before it or behind. The exit code says so, stderr which."""
    Path("texts").write_bytes(b'ann\n\xff\nbob\n{"txt": "a"}\n{"text": "met"}\n{"text": \nzoe\n')
    for size in ("1", "2", "100"):
        assert main(["predict", "out", "--file", "texts", "--batch-size", size]) == 2
        printed = capsys.readouterr()
        answered = [json.loads(line)["text"] for line in printed.out.splitlines()]
        assert answered == ["ann", "bob", "met", "zoe"]
        assert [line.split(": ")[0] for line in printed.err.splitlines()] == [
            "texts:2",
            "texts:4",
            "texts:6:9",
        ]


def test_of_many_lines_that_cannot_be_used_the_first_are_named(
    trained_run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("texts").write_bytes(b"\xff\n" * 30 + b"ann\n")
    assert main(["predict", "out", "--file", "texts"]) == 2
    printed = capsys.readouterr()
    assert json.loads(printed.out)["text"] == "ann"
    named, more = printed.err.splitlines()
    assert named.startswith("texts:1: not UTF-8; save it as UTF-8 (19 more alike: texts:2, ")
    assert more == "texts: ... and more; these are the first 20 problems"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--file", "texts"], "--file texts: No such file or directory; name another file"),
        (["--file", "model"], "--file model: Is a directory; name another file"),
        (["--text", "ann", "--output", "no/file"],
         "--output no/file: No such file or directory; name another file"),
    ],
)  # fmt: skip
def test_files_that_cannot_be_opened(
    trained_run: Path, capsys: pytest.CaptureFixture[str], words: list[str], error: str
) -> None:
    assert main(["predict", "out", *words]) == 2
    assert capsys.readouterr().err == f"{error}\n"


def test_an_output_is_not_touched_before_the_model_is_there(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("answers.jsonl").write_text("of yesterday")
    assert main(["predict", "nothing", "--text", "ann", "--output", "answers.jsonl"]) == 2
    assert Path("answers.jsonl").read_text() == "of yesterday"


def test_a_text_and_a_file_exclude_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["predict", "out", "--text", "ann", "--file", "texts"])
    assert exit_.value.code == 2
    assert "argument --file: not allowed with argument --text" in capsys.readouterr().err
