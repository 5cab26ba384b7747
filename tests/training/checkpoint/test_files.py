"""What HashingFile writes is what it was given, and its stamp is the file's."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import xxhash

from bigft.runtime import failpoints
from bigft.training.checkpoint import files
from bigft.training.checkpoint.files import HashingFile, Stamp, write_durably


@pytest.mark.parametrize("sizes", [[], [0], [1, 2, 3], [99, 100, 101], [1000, 1, 250, 100]])
def test_the_stamp_is_of_the_bytes_in_the_file(
    sizes: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also of what is hashed beside the write, and in pieces."""
    monkeypatch.setattr(files, "LARGE", 50)
    monkeypatch.setattr(files, "PIECE", 100)
    parts = [os.urandom(size) for size in sizes]
    with HashingFile(tmp_path / "file") as file:
        for part in parts:
            assert file.write(memoryview(part)) == len(part)
    whole = b"".join(parts)
    assert (tmp_path / "file").read_bytes() == whole
    assert file.stamp == Stamp(len(whole), xxhash.xxh3_128(whole).hexdigest())


def test_a_large_file_ticks_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LARGE", 50)
    monkeypatch.setattr(files, "PIECE", 100)
    ticks: list[None] = []
    with HashingFile(tmp_path / "file", lambda: ticks.append(None)) as file:
        file.write(bytes(1000))
        assert len(ticks) == 10
    assert len(ticks) == 11, "and once all is on the disk"


def test_what_is_there_is_never_overwritten_or_followed(tmp_path: Path) -> None:
    (tmp_path / "there").write_text("old")
    (tmp_path / "link").symlink_to("elsewhere")
    for name in ("there", "link"):
        with pytest.raises(FileExistsError):
            write_durably(tmp_path / name, "new")
    assert not (tmp_path / "elsewhere").exists()


def test_the_first_error_is_kept(tmp_path: Path) -> None:
    failpoints.arm("checkpoint.write=ENOSPC@2")
    try:
        with pytest.raises(OSError, match="No space"), HashingFile(tmp_path / "file") as file:
            file.write(b"1")
            file.write(b"2")
    finally:
        failpoints.arm("")
    assert file.error is not None
    assert file.error.strerror == "No space left on device"
