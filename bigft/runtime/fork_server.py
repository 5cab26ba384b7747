"""Ranks without the wait for their imports: a process that loads what ranks need, and does nothing
else, starts beside the one that prepares the data, and forks them.

Never forked is a process that has prepared data: by then tokenizers, Arrow and OpenMP have threads,
of which a fork takes none along. Those that there are at the fork: docs/reliability.md.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import sys
import threading
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

from bigft.runtime import imports
from bigft.runtime.logs import quiet_libraries
from bigft.runtime.proc import die_with, start_python
from bigft.runtime.remote_code import fetch_no_code
from bigft.runtime.signals import FORWARDED_SIGNALS


class ServerEnded(RuntimeError):
    """The process that forks ranks is gone."""


@dataclass(slots=True)
class ForkedRank:
    """A rank, which is not a child of this process. pid: its own, until it is reaped."""

    pid: int
    _server: ForkServer
    _ended: threading.Event = field(default_factory=threading.Event)
    _code: int = -signal.SIGKILL  # with the server its ranks die

    def wait(self) -> None:
        """Returns when the rank has ended."""
        self._ended.wait()

    def reap(self) -> int:
        """Its exit code; -n if signal n ended it. Waits for its end."""
        self._ended.wait()
        self._server._tell(reap=self.pid)
        return self._code


class ForkServer:
    """The server, as the parent of the run sees it. On leaving the block it and its ranks die."""

    def __init__(self, program: str, modules: Sequence[str], environ: Mapping[str, str]) -> None:
        """program: the module whose `main(argv)` a rank runs; it returns an exit code.
        modules: loaded before the first fork, with it.
        environ: what the server starts with: libraries read some variables when they are loaded.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            file = theirs.fileno()
            words = ["-m", __name__, str(file), program, *modules]
            self._process = start_python(words, environ, pass_fds=[file])
        self._connection = Connection(ours.detach())
        self._started: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._ranks: dict[int, ForkedRank] = {}
        self._is_gone = False
        self.loaded = threading.Event()  # or ended: from now on `fork` answers at once
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def fork(self, argv: Sequence[str], environ: Mapping[str, str], log: Path | None) -> ForkedRank:
        """A rank that runs the program with these arguments and variables, leads a process group
        and dies with the server. log: what it prints is appended there; None: to the terminal.

        Waits until everything is loaded, whatever signal comes. Raises ServerEnded.
        """
        self._tell(argv=list(argv), environ=dict(environ), log=log and os.fspath(log))
        pid = self._started.get()
        if pid is None:
            raise ServerEnded(self.why_ended)
        return self._ranks[pid]

    @property
    def why_ended(self) -> str:
        """A sentence if the server is gone, and with it its ranks; else ""."""
        if not self._is_gone:
            return ""
        return f"the process that forks ranks ended, by exit code {self._process.wait()}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._listener.join()
        self._connection.close()

    def _listen(self) -> None:
        try:
            while True:
                told = json.loads(self._connection.recv_bytes())
                if "loaded" in told:
                    self.loaded.set()
                elif "started" in told:
                    pid = told["started"]
                    self._ranks[pid] = ForkedRank(pid, self)
                    self._started.put(pid)
                else:
                    rank = self._ranks[told["ended"]]
                    rank._code = told["code"]
                    rank._ended.set()
        except (EOFError, OSError):
            self._is_gone = True
            for rank in self._ranks.values():
                rank._ended.set()
            self._started.put(None)
            self.loaded.set()

    def _tell(self, **what: Any) -> None:
        try:
            self._connection.send_bytes(json.dumps(what).encode())
        except OSError:  # it is gone, which `_listen` sees
            return


def serve(connection: Connection, signals: Set[signal.Signals]) -> dict[str, Any] | None:
    """Forks ranks until the parent leaves. In the forked process: what it shall be.

    signals: that are blocked here, and not in a rank: one that comes while it is born waits.
    """
    asleep, awake = os.pipe()
    os.set_blocking(awake, False)
    signal.set_wakeup_fd(awake)
    signal.signal(signal.SIGCHLD, _remember)
    server, running = os.getpid(), set[int]()
    connection.send_bytes(json.dumps({"loaded": True}).encode())
    while True:
        if connection in wait([connection, asleep]):
            try:
                request = json.loads(connection.recv_bytes())
            except EOFError:
                return None
            if "reap" in request:
                os.waitpid(request["reap"], 0)
            elif (pid := os.fork()) == 0:
                os.setpgid(0, 0)  # before it can start workers, which belong to its group
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                connection.close()
                os.close(asleep)
                os.close(awake)
                die_with(server)
                signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
                return request
            else:
                os.setpgid(pid, pid)  # before anybody knows of it
                running.add(pid)
                connection.send_bytes(json.dumps({"started": pid}).encode())
        else:
            os.read(asleep, 4096)
        for pid in tuple(running):
            if end := os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                running.remove(pid)  # not reaped: until the parent says so its id is its own
                code = end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
                connection.send_bytes(json.dumps({"ended": pid, "code": code}).encode())


def _remember(number: int, frame: FrameType | None) -> None:
    """Makes Python write to the wake-up pipe."""


def _run(program: str, argv: list[str], environ: dict[str, str], log: str | None) -> NoReturn:
    os.environ.clear()
    os.environ.update(environ)
    if log is not None:
        file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.close(file)
    sys.exit(import_module(program).main(argv))


def main() -> None:
    file, program, *modules = sys.argv[1:]
    signals = set(FORWARDED_SIGNALS)
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # a rank saves at them; this one stays
    quiet_libraries()
    fetch_no_code()
    # What is loaded stays: a collection in a rank would write to pages that all of them share.
    imports.owns_process = True
    with imports.importing():
        for module in (program, *modules):
            import_module(module)
    if rank := serve(Connection(int(file)), signals):
        _run(program, **rank)


if __name__ == "__main__":
    main()
