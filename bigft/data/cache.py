"""A cache of directories, each under a fingerprint; a directory appears whole or not at all.

Several processes, on several hosts, may want the same directory at once. A lock spares them double
work; that no half-written directory is ever read rests on os.rename alone, so it holds on network
file systems whose locks do nothing. All of them build in one directory, whose name follows from the
fingerprint, so that a build which is killed is gone on with. That is safe because its files appear
by rename too (`appearing`), and because the fingerprint decides what stands in them: whoever
comes second puts a file in place of its like, or finds that all is done.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pyarrow as pa

from bigft.config.errors import BadInput, Problem
from bigft.runtime.failpoints import failpoint

log = logging.getLogger(__name__)

FORMAT = 4  # raise it when the prepared files change: older directories are then left alone
META = "meta.json"
BUILDING = ".tmp-"
STALE_SECONDS = 24 * 3600
UNUSABLE_PLACE = {
    *(errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS),
    *(errno.ENOTDIR, errno.EEXIST),  # a file where the directory should be
}


def cache_root(kind: str = "prepared") -> Path:
    """Where they lie: under BIGFT_CACHE, else XDG_CACHE_HOME/bigft or ~/.cache/bigft.

    kind: `prepared` data, or compiled `extensions`.
    """
    if place := os.environ.get("BIGFT_CACHE"):
        return Path(place).expanduser() / kind
    caches = os.environ.get("XDG_CACHE_HOME")
    return (Path(caches) if caches else Path.home() / ".cache") / "bigft" / kind


def fingerprint(parts: Mapping[str, Any], files: Sequence[str | os.PathLike[str]]) -> str:
    """64 hex digits that change with anything that changes the prepared data.

    parts: JSON types only: options, the tokenizer's JSON, bigft's version, the names of formats.
    files: what is read; their names count too, since records state them. Read in small pieces.
    Raises BadInput naming every file that cannot be read.
    """
    digests, problems = [], []
    for file in [os.fspath(path) for path in files]:
        try:
            with open(file, "rb") as stream:
                digests.append([file, hashlib.file_digest(stream, "sha256").hexdigest()])
        except OSError as error:
            problems.append(Problem(file, f"cannot be read: {error.strerror}"))
    if problems:
        raise BadInput(problems)
    whole = {"format": FORMAT, "parts": dict(parts), "files": digests}
    text = json.dumps(whole, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


class Interrupted(Exception):
    """Ends a build that another call can go on with: unlike after a failure, its files stay."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        super().__init__(str(problem))


def prepared(root: Path, fingerprint: str, build: Callable[[Path], object]) -> Path:
    """`<root>/<fingerprint>`, complete; `build(directory)` fills it where it is missing or damaged.

    build: may find files of an earlier call, whole ones if it writes them by `appearing`.
    A build that fails leaves nothing behind but an empty lock file. One that is killed leaves its
    directory `.tmp-<fingerprint>` to the next call; other builds remove it after a day.
    Raises BadInput where the place cannot be written or `build` is Interrupted, and whatever else
    `build` raises.
    """
    final = root / fingerprint
    if _is_intact(final):
        return final
    try:
        root.mkdir(parents=True, exist_ok=True)
        with locked(root / f"{fingerprint}.lock"):
            while not (_is_intact(final) or _build(final, build)):
                log.info("another process has taken %s away: looking again", final.name)
    except Interrupted as error:
        raise BadInput(error.problem) from error
    except OSError as error:
        if error.errno in UNUSABLE_PLACE and _concerns(error, root):
            fix = "set BIGFT_CACHE to a directory that is writable and has space"
            what = f"prepared data cannot be written: {error.strerror or error}"
            raise BadInput(Problem(str(root), what, fix)) from error
        raise
    return final


@contextmanager
def locked(path: Path) -> Iterator[bool]:
    """Waits for the advisory lock; the kernel frees it if its holder is killed.

    Yields whether this process holds it: False on a file system that has no locks.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    held = True
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("another process prepares %s: waiting", path.stem)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            log.info("no locks at %s (%s): several processes may prepare the same", path, error)
            held = False
        yield held
    finally:
        os.close(descriptor)


@contextmanager
def appearing(path: Path) -> Iterator[Path]:
    """A name to write a file under that becomes `path`, whole and durable, where the block ends."""
    private = path.with_name(f".{path.name}-{secrets.token_hex(8)}")
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        yield private
        _sync(private)
        failpoint("data.rename")
        os.replace(private, path)
    finally:
        private.unlink(missing_ok=True)
        with suppress(FileNotFoundError):  # or where the directory was renamed to meanwhile
            os.unlink(private.name, dir_fd=directory)
        os.close(directory)


def _build(final: Path, build: Callable[[Path], object]) -> bool:
    """False if another process, which no lock held back, has committed or removed our directory."""
    if final.exists():
        log.warning("%s is damaged: preparing the data again", final)
    building = final.with_name(f"{BUILDING}{final.name}")
    _remove_stale(final.parent, building)
    building.mkdir(exist_ok=True)
    try:
        build(building)
        _seal(building)
        _commit(building, final)
    except Exception as error:
        if isinstance(error, FileNotFoundError) and (_is_intact(final) or not building.exists()):
            return False
        if not isinstance(error, Interrupted):
            _remove(building)
        raise
    return True


def _commit(building: Path, final: Path) -> None:
    while True:
        try:
            os.rename(building, final)
            break
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        if _is_intact(final):  # somebody else was faster
            _remove(building)
            return
        _remove(final)
    for private in final.glob(".*"):  # of builds that were killed
        private.unlink(missing_ok=True)
    _sync(final.parent)


def _remove(directory: Path) -> None:
    """Under another name, so that nobody meets half of it."""
    away = directory.with_name(f"{BUILDING}{secrets.token_hex(8)}")
    with suppress(FileNotFoundError):  # somebody else does it too
        os.rename(directory, away)
    shutil.rmtree(away, ignore_errors=True)


def _seal(directory: Path) -> None:
    """Writes meta.json, what `_is_intact` compares with, and makes everything durable."""
    files = sorted(path for path in directory.glob("[!.]*") if path.name != META)
    measures = {path.name: _measure(path) for path in files}
    with appearing(directory / META) as meta:
        meta.write_text(json.dumps({"format": FORMAT, "files": measures}, indent=1))
    for path in [*files, directory]:
        _sync(path)


def _is_intact(directory: Path) -> bool:
    try:
        meta = json.loads((directory / META).read_text())
        return all(_measure(directory / name) == seen for name, seen in meta["files"].items())
    except (OSError, ValueError, KeyError, pa.ArrowException):
        return False


def _measure(path: Path) -> dict[str, int]:
    """The size in bytes; of an Arrow file the number of rows too, read from its footer on."""
    measures = {"bytes": path.stat().st_size}
    if path.suffix == ".arrow":
        with pa.memory_map(str(path)) as mapped:
            reader = pa.ipc.open_file(mapped)
            batches = map(reader.get_batch, range(reader.num_record_batches))
            measures["rows"] = sum(batch.num_rows for batch in batches)
    return measures


def _remove_stale(root: Path, ours: Path) -> None:
    oldest = time.time() - STALE_SECONDS
    for directory in {*root.glob(f"{BUILDING}*")} - {ours}:
        try:
            newest = max(path.stat().st_mtime for path in [directory, *directory.iterdir()])
        except OSError:  # its owner has just committed or removed it
            continue
        if newest < oldest:
            shutil.rmtree(directory, ignore_errors=True)


def _concerns(error: OSError, root: Path) -> bool:
    """Whether the failure is one of the cache, and not of a data file that `build` reads."""
    if error.filename is None:
        return True
    place = Path(os.fsdecode(error.filename))
    return place.is_relative_to(root) or root.is_relative_to(place)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
