"""The variables that a rank's process starts with."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

# Glibc reads them at process start only: pages stay with the process between steps, which speeds
# training on CPUs by a quarter.
MALLOC_SETTINGS = {
    "MALLOC_MMAP_THRESHOLD_": "1073741824",
    "MALLOC_TRIM_THRESHOLD_": "4294967296",
    "MALLOC_TOP_PAD_": "268435456",
}
# libgomp reads it when it is loaded. By default a thread that waits for another one spins 300,000
# times before it sleeps: on a core that the other one, or another process, needs (docs/results.md).
SPINS = {"GOMP_SPINCOUNT": "5000"}
WAIT_SETTINGS = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")  # the user's own: either says how to wait
SETTLED = "BIGFT_SETTLED"  # settings are applied: not again
PARENT = "BIGFT_PARENT"  # the process that started the ranks, and claimed the directory for them
GPU_DEVICES = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")  # NVIDIA's, under WSL, AMD's


def environment_of_ranks(nproc: int, environ: Mapping[str, str]) -> dict[str, str]:
    """environ, and what every one of nproc ranks that this process starts is told beside its place:
    they share the machine's cores equally. The user's own values stay."""
    cores = len(os.sched_getaffinity(0))
    threads = {"OMP_NUM_THREADS": str(max(1, cores // nproc))}
    told = {SETTLED: "1", PARENT: str(os.getpid())}
    return {**threads, **environ, **process_settings(environ), **told}


def process_settings(environ: Mapping[str, str]) -> dict[str, str]:
    """What a rank's environment should hold and does not; the user's own values stay."""
    settings = {**MALLOC_SETTINGS, "TOKENIZERS_PARALLELISM": "false"}
    if not any(name in environ for name in WAIT_SETTINGS):
        settings |= SPINS
    return {name: value for name, value in settings.items() if name not in environ}


def may_have_gpu(environ: Mapping[str, str]) -> bool:
    """Whether there may be a GPU to train on; asks no library, so that none has to be loaded."""
    if (chosen := environ.get("DS_ACCELERATOR")) is not None:
        return chosen != "cpu"
    return any(Path(device).exists() for device in GPU_DEVICES)


@contextmanager
def variables(**values: str) -> Iterator[None]:
    """In the block this process's environment holds these; afterwards they are as before."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def reexec_with(settings: Mapping[str, str]) -> None:
    """Applies the settings; starts this process anew, once, if one of them is read only at start.

    The process id stays, so launchers do not notice. Must run before anything is imported or
    started that a second start would repeat.
    """
    os.environ.update(settings)
    if SETTLED in os.environ or not {*MALLOC_SETTINGS, *SPINS} & settings.keys():
        return
    os.environ[SETTLED] = "1"
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
