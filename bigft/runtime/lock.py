"""LOCK: who holds a run directory, so that two runs never write to one.

LOCK names the holder and carries a token that no other claim ever has; the time of its last change
is the holder's heartbeat. Only who made `.LOCK-after-<token>`, a hard link, which one process alone
can make, and found LOCK unchanged after that, replaces or removes it: of several that find a dead
holder one succeeds it. Who died between these two steps is a holder to be succeeded in turn: the
holder is the end of that chain. All of it is atomic on network file systems too.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from bigft.config.errors import BadInput, Problem
from bigft.runtime.environment import PARENT
from bigft.runtime.failpoints import failpoint

BEAT_SECONDS = 10.0
SILENCE_SECONDS = 60.0  # without a heartbeat, after which a holder of another host counts as dead
LOOK_SECONDS = 0.5


class LockLost(RuntimeError):
    """Another run holds the directory now: nothing may be written there any more."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A process and its claim.

    host, space: where its id means something: the machine since its boot, and the namespace of ids,
    since containers may share the machine's name.  job_id: Slurm's, "" outside of it.
    """

    host: str
    space: str
    pid: int
    pid_started: int | None
    job_id: str
    restart_count: int
    token: str

    @classmethod
    def this_process(cls) -> Holder:
        return cls(
            socket.gethostname(),
            _space(),
            os.getpid(),
            _start_of(os.getpid()),
            os.environ.get("SLURM_JOB_ID", ""),
            int(os.environ.get("SLURM_RESTART_COUNT", "0")),
            secrets.token_hex(8),
        )

    def __str__(self) -> str:
        job = f" (Slurm job {self.job_id}, restart {self.restart_count})" if self.job_id else ""
        return f"process {self.pid} on {self.host}{job}"

    @property
    def is_here(self) -> bool:
        return (self.host, self.space) == (socket.gethostname(), _space())

    @property
    def is_gone(self) -> bool:
        """Whether it surely is; of another host's processes nothing can be known.

        The start time is compared too: process ids are used again, in containers all the time.
        """
        return self.is_here and _start_of(self.pid) != self.pid_started

    @property
    def is_us(self) -> bool:
        """This process, or the parent that claimed the directory for its ranks."""
        us = (str(os.getpid()), os.environ.get(PARENT))
        return self.is_here and not self.is_gone and str(self.pid) in us


@dataclass(frozen=True, slots=True)
class _Seen:
    holder: Holder
    beat: int


class Lock:
    """One directory's LOCK as this process sees it."""

    def __init__(self, directory: Path) -> None:
        self._file = directory / "LOCK"
        self._claimed: Holder | None = None  # us or our parent
        self._end_of_beats: threading.Event | None = None  # set: of what we acquired ourselves

    def holder(self) -> Holder | None:
        """Who holds the directory, dead or alive. Raises: BadInput for a LOCK that is none."""
        chain = self._chain()
        return chain[-1].holder if chain else None

    def check(self) -> None:
        """Raises BadInput if `acquire` surely would; neither writes nor waits."""
        chain = self._chain()
        if chain and not chain[-1].holder.is_us:
            self._may_succeed(chain[-1].holder, Holder.this_process())

    def acquire(self) -> tuple[Holder, bool]:
        """Makes this process the holder, unless it or its parent is; who is, and whether anew.

        A dead process of this host is succeeded, and one of the same Slurm job with a lower restart
        count. One of another host is watched for SILENCE_SECONDS first, since clocks of two hosts
        cannot be compared.
        Raises: BadInput naming a holder that lives.
        """
        me = Holder.this_process()
        while True:
            chain = self._chain()
            if chain and chain[-1].holder.is_us:
                self._claimed = chain[-1].holder
                return self._claimed, False
            if chain and not (
                self._may_succeed(chain[-1].holder, me) or self._stays_silent(chain[-1])
            ):
                continue
            if self._succeed(chain, me):
                break
        self._claimed = me
        self._end_of_beats = threading.Event()
        beating = (os.open(self._file, os.O_RDONLY), self._end_of_beats)
        threading.Thread(target=_beat, args=beating, name="heartbeat", daemon=True).start()
        return me, True

    def is_ours(self) -> bool:
        """Whether the claim made here stands; without one, whether no other launch has one.

        Raises: OSError if that cannot be read.
        """
        holder = self.holder()
        if self._claimed is not None:
            return holder == self._claimed
        me = Holder.this_process()
        return holder is None or _launch(holder) == _launch(me)

    def release(self) -> None:
        """Gives up what this process, not its parent, acquired; else does nothing."""
        if self._claimed is None or self._end_of_beats is None:
            return
        self._end_of_beats.set()
        # What cannot be removed, on a disk that is full or gone, names a process that is dead soon.
        with contextlib.suppress(OSError, BadInput):  # or is no LOCK any more
            self._succeed([_Seen(self._claimed, 0)], None)
        self._claimed = self._end_of_beats = None

    def _may_succeed(self, holder: Holder, me: Holder) -> bool:
        """Whether at once; False where only its silence can tell. Raises BadInput: it may not."""
        if holder.job_id and holder.job_id == me.job_id:
            if holder.restart_count < me.restart_count:
                return True
            if holder.restart_count > me.restart_count:
                raise self._held_by(holder)
        if holder.is_here and not holder.is_gone:
            raise self._held_by(holder)
        return holder.is_here

    def _stays_silent(self, seen: _Seen) -> bool:
        """Watches the holder; False if another one takes its place. Raises BadInput: it lives."""
        print(
            f"bigft: {self._file.parent} is held by {seen.holder}; waiting up to "
            f"{SILENCE_SECONDS:.0f} s for a sign that it lives",
            file=sys.stderr,
            flush=True,
        )
        end = time.monotonic() + SILENCE_SECONDS
        while time.monotonic() < end:
            time.sleep(LOOK_SECONDS)
            chain = self._chain()
            if not chain or chain[-1].holder != seen.holder:
                return False
            if chain[-1].beat != seen.beat:
                raise self._held_by(seen.holder)
        return True

    def _held_by(self, holder: Holder) -> BadInput:
        return BadInput(
            Problem(
                "train.output_dir",
                f"{self._file.parent} is held by {holder}, which is running",
                "wait for it, stop it, or choose another train.output_dir",
            )
        )

    def _chain(self) -> list[_Seen]:
        """Who LOCK names, and who took over after whom since; the last one holds."""
        chain: list[_Seen] = []
        seen = _read(self._file)
        while seen is not None:
            chain.append(seen)
            seen = _read(self._after(seen.holder))
        return chain

    def _after(self, holder: Holder) -> Path:
        return self._file.with_name(f".LOCK-after-{holder.token}")

    def _succeed(self, chain: list[_Seen], me: Holder | None) -> bool:
        """Makes LOCK name me, or nobody, in place of the chain; False if another was faster."""
        claim = me or Holder.this_process()
        mine = self._file.with_name(f".LOCK-{claim.token}")
        try:
            with mine.open("x", encoding="utf-8") as file:
                file.write(json.dumps(asdict(claim), indent=2) + "\n")
                file.flush()
                os.fsync(file.fileno())
            if not chain:
                return _link(mine, self._file)
            if not _link(mine, self._after(chain[-1].holder)):
                return False
            # Nobody else changes LOCK now; but it may have changed before the link was made.
            first = _read(self._file)
            if first is None or first.holder != chain[0].holder:
                self._after(chain[-1].holder).unlink(missing_ok=True)
                return False
            failpoint("lock.change")
            if me is None:
                self._file.unlink()
            else:
                os.replace(mine, self._file)
            for seen in chain:
                self._after(seen.holder).unlink(missing_ok=True)
            return True
        finally:
            mine.unlink(missing_ok=True)


def _read(file: Path) -> _Seen | None:
    try:
        with file.open("rb") as opened:  # a network file system asks the server when it opens
            content = json.load(opened)
            return _Seen(Holder(**content), os.fstat(opened.fileno()).st_mtime_ns)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError) as error:
        what = f"not the LOCK of a bigft run ({error})"
        raise BadInput(Problem(str(file), what, "remove it if no run uses its directory")) from None


def _link(file: Path, to: Path) -> bool:
    """Makes a hard link, unless the name is taken."""
    try:
        os.link(file, to)
    except FileExistsError:
        # NFS may say so of a link that it made, when an answer was lost: the count tells.
        return file.stat().st_nlink > 1
    return True


def _beat(descriptor: int, end: threading.Event) -> None:
    """By descriptor: it cannot touch the LOCK of one who took over."""
    while not end.wait(BEAT_SECONDS):
        with contextlib.suppress(OSError):
            os.utime(descriptor)
    os.close(descriptor)


def _launch(holder: Holder) -> tuple[str, int]:
    return holder.job_id, holder.restart_count


def _space() -> str:
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {os.readlink('/proc/self/ns/pid')}"


def _start_of(pid: int) -> int | None:
    """When the process started, in clock ticks since boot; None if it is gone or a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name, in parentheses, may hold spaces and parentheses itself.
    state, *fields = stat.rpartition(")")[2].split()
    return None if state == "Z" else int(fields[18])
