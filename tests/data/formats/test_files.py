"""What is no data is said to be none, and compressed files are read as they are."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from bigft.config.errors import BadInput
from bigft.data.formats import ReadOptions, detect_format, read_records
from bigft.data.formats.files import check_is_regular

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 12345\n"


def zstd(content: bytes) -> bytes:
    return bytes(pyarrow.Codec("zstd").compress(content, asbytes=True))


COMPRESSED = pytest.mark.parametrize(
    ("suffix", "compress"),
    [(".gz", gzip.compress), (".bz2", bz2.compress), (".xz", lzma.compress), (".zst", zstd)],
)


def refusal(path: Path, **options: object) -> str:
    with pytest.raises(BadInput) as caught:
        read_records([str(path)], ReadOptions(**options))
    return str(caught.value).replace(f"{path.parent}{os.sep}", "")


@COMPRESSED
@pytest.mark.parametrize(
    ("name", "content", "format"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"text": "y"}\n', "jsonl"),
        ("a.json", b'[{"text": "x"},\n{"text": "y"}]', "json"),
        ("a.csv", b"text\nx\ny\n", "csv"),
        ("a.TXT", b"x\ny\n", "text"),
    ],
)
def test_a_compressed_file_is_read_as_what_it_holds(
    tmp_path: Path,
    suffix: str,
    compress: Callable[[bytes], bytes],
    name: str,
    content: bytes,
    format: str,
) -> None:
    path = tmp_path / (name + suffix)
    path.write_bytes(compress(content))
    assert detect_format(str(path), of_words=False) == format
    records = read_records([str(path)], ReadOptions(of_words=False))
    assert [record.fields for record in records] == [{"text": "x"}, {"text": "y"}]
    assert {record.file for record in records} == {str(path)}


@COMPRESSED
def test_content_tells_what_compressed_it_and_several_parts_are_one_file(
    tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "named_otherwise"
    path.write_bytes(compress(b'{"a": 1}\n') + compress(b'{"a": 2}\n'))
    records = read_records([str(path)], ReadOptions())
    assert [(record.line, record.fields["a"]) for record in records] == [(1, 1), (2, 2)]


@COMPRESSED
def test_problems_in_a_compressed_file_have_its_lines(
    tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    path.write_bytes(compress(b'{"a": 1}\n{"a": }\n\xff\n'))
    assert refusal(path).splitlines() == [
        f"a.jsonl{suffix}:2:7: no JSON (Expecting value); write one JSON object a line",
        f"a.jsonl{suffix}:3: byte 17 of the file (0xff) is not UTF-8; save it as UTF-8",
    ]


@COMPRESSED
def test_a_compressed_file_that_was_cut_is_refused(
    tmp_path: Path, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    lines = b"".join(b'{"a": "%d"}\n' % (number * 7919) for number in range(5000))
    path.write_bytes(compress(lines)[:-40])
    assert f"a.jsonl{suffix}: cannot be decompressed (" in refusal(path)


def test_a_text_that_begins_like_a_compressed_file_is_a_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("BZh9 is how bzip2 begins\n")
    (record,) = read_records([str(tmp_path / "a.txt")], ReadOptions(of_words=False))
    assert record.fields == {"text": "BZh9 is how bzip2 begins"}


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (LFS, "a Git LFS pointer: it stands in the place of the data; fetch the data with "
              "`git lfs pull`"),
        (b"/annex/objects/SHA256E-s9--0123.jsonl\n",
         "a git-annex pointer: it stands in the place of the data; fetch the data with "
         "`git annex get`"),
        (b"ARROW1\x00\x00", "an Arrow file; name the directory that `save_to_disk` wrote, or write "
                             "Parquet"),
        (b"PK\x03\x04\x14\x00", "a ZIP archive (or a spreadsheet); unpack it, and name a file "
                                "of it"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("format", ["auto", "jsonl", "parquet", "text"])
def test_what_stands_in_the_place_of_data_is_named(
    tmp_path: Path, content: bytes, error: str, format: str
) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)
    assert refusal(tmp_path / "a.jsonl", format=format) == f"a.jsonl: {error}"


def tar(content: bytes) -> bytes:
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as file:
        member = tarfile.TarInfo("a.jsonl")
        member.size = len(content)
        file.addfile(member, io.BytesIO(content))
    return archive.getvalue()


def parquet(rows: list[dict[str, object]]) -> bytes:
    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


UNPACK = "unpack it, and name a file of it"


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (tar(b"{}\n"), f"a tar archive; {UNPACK}"),
        (b"7z\xbc\xaf\x27\x1c\0\4", f"a 7z archive; {UNPACK}"),
        (b"PK\x03\x04\x14\x00", f"a ZIP archive (or a spreadsheet); {UNPACK}"),
        (parquet([{"text": "a"}]), "a Parquet file that is compressed as a whole; decompress it: "
                                   "what a Parquet file holds is compressed already"),
        (gzip.compress(b"{}\n"), "compressed twice; decompress it once"),
    ],
    ids=["tar", "7z", "zip", "parquet", "gzip"],
)  # fmt: skip
@COMPRESSED
def test_what_a_compressed_file_holds_is_named_where_it_is_no_data(
    tmp_path: Path, content: bytes, error: str, suffix: str, compress: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(compress(content))
    assert refusal(path) == f"a{suffix}: {error}"


def test_a_tar_archive_is_named_and_a_text_that_says_ustar_is_a_text(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar(b"{}\n"))
    assert refusal(tmp_path / "a.tar") == f"a.tar: a tar archive; {UNPACK}"
    (tmp_path / "a.txt").write_text("ustar\n" * 100)
    assert len(read_records([str(tmp_path / "a.txt")], ReadOptions(of_words=False))) == 100


def test_a_pointer_in_a_saved_directory_is_named(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"text": ["x"]}).save_to_disk(tmp_path / "saved")
    (arrow,) = (tmp_path / "saved").glob("*.arrow")
    arrow.write_bytes(LFS)
    assert refusal(tmp_path / "saved").startswith(f"saved/{arrow.name}: a Git LFS pointer")


def test_pipes_and_devices_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "a.jsonl").write_text("{}\n")
    with (tmp_path / "a.jsonl").open() as file:
        for path in (str(tmp_path / "fifo"), "/dev/null", f"/dev/fd/{file.fileno()}"):
            with pytest.raises(BadInput, match="a pipe or a device: it can be read only once"):
                check_is_regular(path)
            assert "; write it to a file; .gz, .zst" in refusal(Path(path))
    check_is_regular(str(tmp_path / "a.jsonl"))
