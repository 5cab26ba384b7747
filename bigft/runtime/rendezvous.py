"""Where processes find each other: a store at MASTER_ADDR and MASTER_PORT.

All waiting is Python's, in short sleeps, so that signals are handled meanwhile.
"""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import os
import secrets
import socket
import time
from collections.abc import Sequence
from typing import Any

from torch.distributed import HashStore, PrefixStore, TCPStore  # type: ignore[attr-defined]

from bigft.runtime.launcher import Launch

# torchrun sets it to "True" where its agent already listens on MASTER_PORT for the ranks.
AGENT_LISTENS = "TORCHELASTIC_USE_AGENT_STORE"
SECONDS_BETWEEN_LOOKS = 0.02
SECONDS_PER_RANK = 0.001
SECONDS_PER_CONNECTION = 5


def meet(launch: Launch, seconds: float) -> Any:
    """The store in which the ranks found each other; returns when all of them have come.

    Ranks that meet on a loopback address talk on the loopback interface alone; GLOO_SOCKET_IFNAME
    wins over that.
    seconds: how long to wait, and the store's own time-out later.
    Raises TimeoutError that names the ranks that did not come; ConnectionError if the store went.
    """
    if launch.world_size == 1:
        return HashStore()  # nobody to wait for: no port
    deadline = time.monotonic() + seconds
    host, port = launch.master_addr, launch.master_port
    listens = launch.rank == 0 and os.environ.get(AGENT_LISTENS) != "True"
    listener = None
    if _is_loopback(host):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        if listens:  # torch would listen on every interface of the machine
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listener = socket.create_server((host, port), family=family).detach()
    if not listens:
        reach(host, port, seconds)
    store = TCPStore(
        host,
        port,
        launch.world_size,
        listens,
        timeout=datetime.timedelta(seconds=seconds),
        wait_for_workers=False,
        master_listen_fd=listener,
    )
    try:
        attempt, absent = gather(store, launch.rank, launch.world_size, deadline)
    except RuntimeError as error:  # torch's DistError
        what = f"the store at {host}:{port} went before all ranks had come"
        raise ConnectionError(what) from error
    if absent:
        who = f"{_listed(absent)} of {launch.world_size}"
        raise TimeoutError(f"rank {who} did not come to {host}:{port} within {seconds:.0f} s")
    return PrefixStore(attempt, store)


def reach(host: str, port: int, seconds: float) -> None:
    """Returns when somebody listens there; raises TimeoutError with the system's own reason."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            with socket.create_connection((host, port), timeout=SECONDS_PER_CONNECTION):
                return
        except OSError as error:
            if time.monotonic() > deadline:
                reason = error.strerror or error
                raise TimeoutError(f"cannot reach {host}:{port} ({reason})") from error
        time.sleep(SECONDS_BETWEEN_LOOKS)


def gather(store: Any, rank: int, size: int, deadline: float) -> tuple[str, Sequence[int]]:
    """The name of this attempt to meet, the same on all ranks, and who had not come by then.

    torchrun's store outlives an attempt (--max-restarts), and its TORCHELASTIC_RESTART_COUNT
    differs between nodes. So an attempt is named after tokens that all of its ranks made anew, and
    has met when every rank has written under that name: one that is gone cannot.
    """
    tokens = [f"token/{number}" for number in range(size)]
    store.set(tokens[rank], secrets.token_hex(8))
    attempt, keys = "", tokens
    while True:
        if store.check(tokens):
            attempt = hashlib.sha256(b"".join(store.multi_get(tokens))).hexdigest()
            keys = [f"{attempt}/{number}" for number in range(size)]
            store.set(keys[rank], "")
            if store.check(keys):
                return attempt, ()
        if time.monotonic() > deadline:
            return attempt, [number for number in range(size) if not store.check([keys[number]])]
        time.sleep(SECONDS_BETWEEN_LOOKS + SECONDS_PER_RANK * size)  # one store answers them all


def _listed(numbers: Sequence[int]) -> str:
    *before, last = map(str, numbers)
    return f"{', '.join(before)} and {last}" if before else last


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
