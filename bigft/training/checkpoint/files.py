"""Files that are on the disk once they are closed, and hashed while they are written.

Each step that a crash could fall on is a failpoint: mkdir, write, fsync, rename, link, remove.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import xxhash

from bigft.runtime.failpoints import failpoint

new_hash = xxhash.xxh3_128  # for damage, not malice: SHA-256 is slower than disks are
LARGE = 1 << 20  # bytes from which on hashing beside the write is worth a thread's wake-up
PIECE = 1 << 25  # bytes after which the disk is told to begin, and the watchdog that we got on
Tick = Callable[[], object]


def no_tick() -> None:
    """For who needs not tell that the work goes on."""


@dataclass(frozen=True, slots=True)
class Stamp:
    """What a file must be. size: in bytes; xxh128: XXH3 of 128 bits, 32 hex digits."""

    size: int
    xxh128: str


class HashingFile:
    """A new file; what is written to it is hashed beside the write, which both leave Python's lock.

    Raises OSError as the disk does; `error` is the first one, since callers in C++ hide it.
    tick: called after each PIECE, and once all is on the disk.
    """

    def __init__(self, path: Path, tick: Tick = no_tick) -> None:
        self._tick = tick
        self.error: OSError | None = None
        self._size, self._hash = 0, new_hash()
        self._handed_over = 0  # bytes that the disk was told to begin with
        self._thread = ThreadPoolExecutor(1)
        # Whatever the umask: files that anyone may write are refused when they are read.
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        self._file = os.fdopen(number, "wb")

    def write(self, data: bytes | memoryview) -> int:
        view = memoryview(data).cast("B")
        try:
            failpoint("checkpoint.write")
            if view.nbytes < LARGE:
                self._hash.update(view)
                self._write(view)
            else:
                hashed = self._thread.submit(self._hash.update, view)
                try:
                    for at in range(0, view.nbytes, PIECE):
                        self._write(view[at : at + PIECE])
                finally:
                    hashed.result()  # the caller's memory is only there until this returns
        except OSError as error:
            self.error = self.error or error
            raise
        return view.nbytes

    def _write(self, piece: memoryview) -> None:
        self._file.write(piece)
        self._size += piece.nbytes
        begun = self._size - self._handed_over
        if begun >= PIECE:
            # Or the disk would idle until fsync, and then all would wait for it.
            number = self._file.fileno()
            os.posix_fadvise(number, self._handed_over, begun, os.POSIX_FADV_DONTNEED)
            self._handed_over = self._size
            self._tick()

    def flush(self) -> None:
        """torch.save calls it; what counts is the flush in `__exit__`."""

    @property
    def stamp(self) -> Stamp:
        return Stamp(self._size, self._hash.hexdigest())

    def __enter__(self) -> HashingFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, *about: object) -> None:
        self._thread.shutdown()
        with self._file:
            if kind is None:
                self._file.flush()
                failpoint("checkpoint.fsync")
                os.fsync(self._file.fileno())
                self._tick()


def write_durably(path: Path, text: str, tick: Tick = no_tick) -> Stamp:
    """Makes the file; it may not exist."""
    with HashingFile(path, tick) as file:
        file.write(text.encode())
    return file.stamp


def sync_directory(path: Path) -> None:
    """The names in the directory are on the disk when it returns."""
    failpoint("checkpoint.fsync")
    _sync(path)


def sync_tree(path: Path) -> None:
    """All that is in the directory, and what it is called there, is on the disk when it returns."""
    for place, _, names in os.walk(path):
        for name in names:
            _sync(Path(place, name))
        _sync(Path(place))


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def make_directory(path: Path) -> None:
    failpoint("checkpoint.mkdir")
    path.mkdir(mode=0o755)


def rename(source: Path, target: Path) -> None:
    """Replaces a file or a link, or an empty directory."""
    failpoint("checkpoint.rename")
    os.replace(source, target)
