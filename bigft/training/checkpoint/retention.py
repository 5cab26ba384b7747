"""Which checkpoints stay. What goes is renamed first: a directory half removed has another name."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Set
from pathlib import Path

from bigft.runtime.failpoints import failpoint
from bigft.runtime.run_directory import RunDirectory
from bigft.training.checkpoint.files import rename, sync_directory

TEMPORARY, TRASH = ".tmp-checkpoint-", ".trash-"


def temporary_name(step: int) -> str:
    """Another one for every attempt: what an earlier one left is never written to."""
    return f"{TEMPORARY}{step}-{secrets.token_hex(4)}"


def sweep(directory: RunDirectory) -> None:
    """Removes what runs that died while they saved or removed left behind."""
    for pattern in (f"{TEMPORARY}*", f"{TRASH}*"):
        for path in directory.path.glob(pattern):
            _remove(path)


def discard(path: Path) -> None:
    """Removes a directory that may look whole."""
    trash = path.with_name(f"{TRASH}{path.name.lstrip('.')}-{secrets.token_hex(4)}")
    rename(path, trash)
    _remove(trash)


def put_in_place(temporary: Path, final: Path) -> None:
    """Renames; on the disk when it returns. An older checkpoint of that step makes room.

    Raises OSError, and then all is named as it was.
    """
    older = final.with_name(f"{TRASH}{final.name}-{secrets.token_hex(4)}")
    replaces = final.exists()  # after a resume from before it
    if replaces:
        rename(final, older)
    renamed = False  # and not: is it there, since another run may have put its own in that place
    try:
        rename(temporary, final)
        renamed = True
        sync_directory(final.parent)
    except OSError:
        if renamed:
            os.replace(final, temporary)
        if replaces:
            os.replace(older, final)
        raise
    if replaces:
        _remove(older)


def set_aside_beyond(directory: RunDirectory, step: int) -> None:
    """What a run left that was resumed from before it: not where this one goes on."""
    for later, path in directory.checkpoints():
        if later > step:
            aside = path.with_name(f"superseded-{path.name}")
            if aside.exists():
                discard(aside)
            rename(path, aside)


def prune(directory: RunDirectory, limit: int, keep: Set[int | None]) -> None:
    """Removes the oldest beyond `limit`, but none of the steps in `keep`."""
    found = directory.checkpoints()
    others = [path for step, path in found if step not in keep]
    for path in others[: max(len(found) - limit, 0)]:
        discard(path)


def point(link: Path, target: str) -> None:
    """Makes or moves a relative link."""
    new = link.with_name(f".tmp-{link.name}")
    new.unlink(missing_ok=True)
    failpoint("checkpoint.link")
    new.symlink_to(target)
    rename(new, link)


def _remove(directory: Path) -> None:
    failpoint("checkpoint.remove")
    shutil.rmtree(directory, ignore_errors=True)
