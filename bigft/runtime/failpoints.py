"""Places where tests make a process fail on purpose: killed, stopped, out of disk.

BIGFT_FAILPOINTS is read once, at the first failpoint: `PATTERN=ACTION[@HIT][#RANK]`, several
separated by ";". PATTERN is a shell pattern of names ("checkpoint.*"); HIT counts, from 1, the hits
of all names it matches (default: every hit); RANK: on that rank alone. Actions: `kill` (SIGKILL to
this process), `stop` (SIGSTOP), `interrupt` (SIGINT, as Ctrl-C), `raise` (RuntimeError), `list`
(appends the name to the file that BIGFT_FAILPOINTS_LIST names), or an errno's name (`ENOSPC`,
`EIO`: OSError).
"""

from __future__ import annotations

import errno
import fnmatch
import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path

VARIABLE = "BIGFT_FAILPOINTS"
LIST_VARIABLE = "BIGFT_FAILPOINTS_LIST"
_ENTRY = re.compile(r"(?P<pattern>[\w.*?-]+)=(?P<action>\w+)(?:@(?P<hit>\d+))?(?:#(?P<rank>\d+))?")


@dataclass(slots=True)
class _Failure:
    pattern: str
    action: str
    hit: int | None
    hits: int = 0


_armed: list[_Failure] | None = None


def failpoint(name: str) -> None:
    """Does what BIGFT_FAILPOINTS asks for at this place; nothing where it is not set."""
    if _armed is None:
        rank = int(os.environ.get("RANK") or os.environ.get("SLURM_PROCID") or 0)
        arm(os.environ.get(VARIABLE, ""), rank)
    for failure in _armed or ():
        if fnmatch.fnmatchcase(name, failure.pattern):
            failure.hits += 1
            if failure.hit in (None, failure.hits):
                _fail(failure.action, name)


def arm(text: str, rank: int = 0) -> None:
    """What BIGFT_FAILPOINTS would do; for processes that had none when they started.

    Raises ValueError for a text that is none of the form above.
    """
    global _armed
    armed = []
    for part in filter(None, text.split(";")):
        entry = _ENTRY.fullmatch(part)
        if entry is None or entry["action"] not in (*_SIGNALS, "raise", "list", *_ERRNOS):
            raise ValueError(f"{VARIABLE}: {part!r} is not PATTERN=ACTION[@HIT][#RANK]")
        if entry["rank"] is None or int(entry["rank"]) == rank:
            hit = int(entry["hit"]) if entry["hit"] else None
            armed.append(_Failure(entry["pattern"], entry["action"], hit))
    _armed = armed


_SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP, "interrupt": signal.SIGINT}
_ERRNOS = {name: number for number, name in errno.errorcode.items()}


def _fail(action: str, name: str) -> None:
    if action in _SIGNALS:
        os.kill(os.getpid(), _SIGNALS[action])
    elif action == "raise":
        raise RuntimeError(f"failpoint {name}")
    elif action == "list":
        with Path(os.environ[LIST_VARIABLE]).open("a") as file:
            print(name, file=file)
    else:
        raise OSError(_ERRNOS[action], os.strerror(_ERRNOS[action]), name)
