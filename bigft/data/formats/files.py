"""A data file before it has a format: is it one at all, and its bytes, decompressed.

What compressed it is told by its first bytes; a name may say anything.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import re
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path, PurePath
from typing import IO, Any

from bigft.config.errors import BadInput, Problem
from bigft.runtime.pointers import pointer_in

HEAD = 512  # bytes: more than any of the beginnings below, and the head of a tar archive
TAR = slice(257, 262)  # where such an archive says "ustar"
PARQUET_MAGIC = b"PAR1"
STREAMS = (PurePath("/dev/fd"), PurePath("/dev/stdin"), PurePath("/proc"))
UNPACK = "unpack it, and name a file of it"
ARCHIVES = {
    b"PK\x03\x04": ("a ZIP archive (or a spreadsheet)", UNPACK),
    b"7z\xbc\xaf\x27\x1c": ("a 7z archive", UNPACK),
    b"Rar!\x1a\x07": ("a RAR archive", UNPACK),
    **dict.fromkeys(
        (b"ARROW1", b"\xff\xff\xff\xff"),  # a file, and a stream
        ("an Arrow file", "name the directory that `save_to_disk` wrote, or write Parquet"),
    ),
}
COMPRESSED_SUFFIXES = {".gz", ".zst", ".bz2", ".xz"}


def check_file(path: str) -> None:
    """Raises BadInput for an existing path that is no data: a pipe, a pointer, an archive."""
    check_is_regular(path)
    check_content(path)


def check_content(path: str) -> None:
    """Raises BadInput for a file that is no data, or that holds none where it is decompressed."""
    head = stored = _head(path)
    with suppress(BadInput), open_data(path) as file:  # of one that is cut the reader tells
        head = file.read(HEAD)
    problem = _as_pointer(path) or _as_archive(path, head)
    if head[TAR] == b"ustar":
        problem = Problem(path, "a tar archive", UNPACK)
    elif head != stored and head.startswith(PARQUET_MAGIC):
        fix = "decompress it: what a Parquet file holds is compressed already"
        problem = Problem(path, "a Parquet file that is compressed as a whole", fix)
    elif head != stored and _decompressor(head):
        problem = Problem(path, "compressed twice", "decompress it once")
    if problem:
        raise BadInput(problem)


def not_fetched(path: str) -> list[Problem]:
    """The pointers in the place of a file, or of files of a directory; none for another name."""
    files = sorted(str(file) for file in [Path(path), *Path(path).rglob("*")] if file.is_file())
    return [problem for file in files if (problem := _as_pointer(file))]


def _head(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read(HEAD)


def _as_pointer(path: str) -> Problem | None:
    pointer = pointer_in(path)
    if pointer is None:
        return None
    found = f"a {pointer.tool} pointer: it stands in the place of the data"
    return Problem(path, found, f"fetch the data with `git {pointer.fetch}`")


def _as_archive(path: str, head: bytes) -> Problem | None:
    for beginning, (found, fix) in ARCHIVES.items():
        if head.startswith(beginning):
            return Problem(path, found, fix)
    return None


def check_is_regular(path: str) -> None:
    """Raises BadInput for a pipe, a socket or a device, and for a name that another process, such
    as another rank, would read something else under."""
    of_process = any(PurePath(path).is_relative_to(stream) for stream in STREAMS)
    if of_process or not stat.S_ISREG(Path(path).stat().st_mode):
        found = "a pipe or a device: it can be read only once, and not by every rank"
        fix = "write it to a file; .gz, .zst, .bz2 and .xz files are read as they are"
        raise BadInput(Problem(path, found, fix))


def data_suffix(path: str) -> str:
    """The suffix that tells the format, in lower case: of `a.CSV.gz` it is `.csv`."""
    place = PurePath(path.lower())
    return PurePath(place.stem).suffix if place.suffix in COMPRESSED_SUFFIXES else place.suffix


@contextmanager
def open_data(path: str) -> Iterator[IO[bytes]]:
    """The bytes of the file, decompressed as a stream.

    Raises BadInput where they cannot be decompressed to the end.
    """
    decompress = _decompressor(_head(path))
    if decompress is None:
        with open(path, "rb") as file:
            yield file
        return
    try:
        with decompress(path) as file:
            yield file
    except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
        found = f"cannot be decompressed ({' '.join(str(error).split())})"
        raise BadInput(Problem(path, found, "compress it again, or fetch it again")) from error


def create_data(path: str) -> IO[str]:
    """A new file for UTF-8 text, compressed as its suffix says. Raises OSError."""
    compress = COMPRESS.get(PurePath(path.lower()).suffix)
    if compress is None:
        return open(path, "w", encoding="utf-8")
    return io.TextIOWrapper(compress(path), encoding="utf-8")


def _decompressor(head: bytes) -> Callable[[str], Any] | None:
    return next((DECOMPRESS[magic] for magic in DECOMPRESS if magic.match(head)), None)


def _open_zstd(path: str) -> Any:
    import pyarrow

    return io.BufferedReader(pyarrow.input_stream(path, compression="zstd"))


def _create_zstd(path: str) -> Any:
    import pyarrow

    return pyarrow.output_stream(path, compression="zstd")


COMPRESS: dict[str, Callable[[str], Any]] = {
    ".gz": partial(gzip.open, mode="wb"),
    ".zst": _create_zstd,
    ".bz2": partial(bz2.open, mode="wb"),
    ".xz": partial(lzma.open, mode="wb"),
}
DECOMPRESS: dict[re.Pattern[bytes], Callable[[str], Any]] = {
    re.compile(rb"\x1f\x8b"): gzip.open,
    re.compile(rb"\x28\xb5\x2f\xfd|[\x50-\x5f]\x2a\x4d\x18"): _open_zstd,
    # A text may begin with "BZh" too: the first block, or the end of an empty file, follows.
    re.compile(rb"BZh[1-9](1AY&SY|\x17\x72\x45\x38\x50\x90)"): bz2.open,
    re.compile(rb"\xfd7zXZ\x00"): lzma.open,
}
