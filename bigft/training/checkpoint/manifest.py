"""MANIFEST.json and COMMIT: what a checkpoint holds, and whether it still does. Needs no torch.

Hashes tell damage, not malice: who can write the files can write a manifest. So nothing that a
manifest says leads outside of its checkpoint, and files that others may have written are refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

from bigft.training.checkpoint.files import Stamp, Tick, new_hash, no_tick

SHARDS = "ds"  # DeepSpeed's tag: the subdirectory with its files
STATE = "trainer.json"
MANIFEST = "MANIFEST.json"
COMMIT = "COMMIT"  # the last file written: its presence is what makes a checkpoint
FORMAT = 1
_NAME = re.compile(rf"({SHARDS}/)?\w[\w.-]*", re.ASCII)


class Damaged(Exception):
    """A checkpoint that must not be used; str() names the file and says what is wrong with it."""


def rank_file(rank: int) -> str:
    return f"rank-{rank:05d}.json"


@dataclass(frozen=True, slots=True)
class Manifest:
    """step: optimizer steps done.

    fingerprint: what a run that goes on must not change (`resume_fingerprint`).
    files: by the rank that wrote them, then by name within the checkpoint.
    """

    step: int
    fingerprint: dict[str, Any]
    files: list[dict[str, Stamp]]

    @property
    def text(self) -> str:
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1) + "\n"

    @property
    def num_bytes(self) -> int:
        return sum(stamp.size for of_rank in self.files for stamp in of_rank.values())

    @classmethod
    def read(cls, checkpoint: Path) -> Manifest:
        """Raises Damaged where COMMIT is not MANIFEST's hash, or a name leads elsewhere."""
        try:
            _check(checkpoint, os.lstat(checkpoint), stat.S_ISDIR)
            text = _content(checkpoint / MANIFEST)
            if _content(checkpoint / COMMIT).decode("ascii", "replace") != commit_text(text):
                raise Damaged(f"{COMMIT} is not the hash of {MANIFEST}")
        except OSError as error:
            raise _unreadable(error) from error
        try:
            told = json.loads(text)
            if told.pop("format") != FORMAT:
                raise ValueError(f"not of format {FORMAT}")
            told["files"] = [
                {name: Stamp(**stamp) for name, stamp in files.items()} for files in told["files"]
            ]
            manifest = cls(**told)
            if not (isinstance(manifest.step, int) and isinstance(manifest.fingerprint, dict)):
                raise ValueError("step or fingerprint is none")
            if STATE not in manifest.files[0]:
                raise ValueError(f"no {STATE}")
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
            raise Damaged(f"{MANIFEST}: not one of bigft's ({error})") from error
        for name in (name for files in manifest.files for name in files):
            if not _NAME.fullmatch(name):
                raise Damaged(f"{MANIFEST}: names {name!r}, which is no file of a checkpoint")
        return manifest

    def problems(self, checkpoint: Path, ranks: Iterable[int], tick: Tick = no_tick) -> list[str]:
        """What is wrong with the files that these ranks wrote; reads them whole, and ticks after
        each."""
        try:
            shards = checkpoint / SHARDS
            _check(shards, os.lstat(shards), stat.S_ISDIR)
            named = {name for files in self.files for name in files}
            strangers = {f"{SHARDS}/{name}" for name in os.listdir(shards)} - named
        except OSError as error:
            return [str(_unreadable(error))]
        except Damaged as damaged:
            return [str(damaged)]
        found = [f"{name}: not in {MANIFEST}" for name in sorted(strangers)]
        for rank in ranks:
            for name, stamp in self.files[rank].items():
                try:
                    _verify(checkpoint, name, stamp)
                except Damaged as damaged:
                    found.append(str(damaged))
                tick()
        return found

    def check_state(self, checkpoint: Path) -> None:
        """Raises Damaged where trainer.json is not what was written."""
        _verify(checkpoint, STATE, self.files[0][STATE])


def commit_text(manifest: bytes) -> str:
    return new_hash(manifest).hexdigest() + "\n"


def _verify(checkpoint: Path, name: str, stamp: Stamp) -> None:
    try:
        with _open(checkpoint / name) as file:
            size = os.fstat(file.fileno()).st_size
            if size != stamp.size:
                raise Damaged(f"{name}: {size} bytes, {stamp.size} were written")
            if hashlib.file_digest(file, new_hash).hexdigest() != stamp.xxh128:
                raise Damaged(f"{name}: its bytes are not those that were written")
    except OSError as error:
        raise _unreadable(error) from error


def _content(path: Path) -> bytes:
    with _open(path) as file:
        return file.read()


def _open(path: Path) -> BufferedReader:
    """Follows no link, and waits for no pipe. Raises OSError, or Damaged for a file not ours."""
    number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    file = os.fdopen(number, "rb")
    try:
        _check(path, os.fstat(number), stat.S_ISREG)
    except Damaged:
        file.close()
        raise
    return file


def _check(path: Path, about: os.stat_result, is_kind: Any) -> None:
    """A pickle is refused where anyone else may have made it, although it is read with care."""
    if not is_kind(about.st_mode):
        raise Damaged(f"{path.name}: not a plain file or directory")
    if about.st_uid != os.geteuid():
        raise Damaged(f"{path.name}: belongs to another user (id {about.st_uid})")
    if about.st_mode & stat.S_IWOTH:
        raise Damaged(f"{path.name}: anyone may write to it")


def _unreadable(error: OSError) -> Damaged:
    return Damaged(f"{Path(str(error.filename)).name}: cannot be read ({error.strerror})")
