"""What a benchmark reads off the machine: time, memory, errors, and the ceilings of this run."""

from __future__ import annotations

import ctypes
import gc
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

# glibc keeps what is freed below a threshold that grows by itself, and MKL keeps its buffers: a
# second run would find that memory there, and it would be counted for nobody.
COUNTED_ENVIRONMENT = {"MALLOC_MMAP_THRESHOLD_": "65536", "MKL_DISABLE_FAST_MM": "1"}
ROWS_AT_A_TIME = 1024  # of fp64 temporaries
SLEEP_CYCLES = 2_000_000  # about 1 ms


class Spread(NamedTuple):
    """Seconds, over `runs` runs."""

    median: float
    p20: float
    p80: float
    runs: int


class Memory(NamedTuple):
    """Bytes beyond the inputs: at the peak, and of what stays (the loss and the gradients)."""

    peak: int
    outputs: int


def spread(seconds: Sequence[float]) -> Spread:
    p20, median, p80 = np.quantile(seconds, [0.2, 0.5, 0.8]).tolist()
    return Spread(median, p20, p80, len(seconds))


class Clock:
    """Times single calls, each with cold caches."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._evicting = torch.zeros(_cache_bytes(device) // 4, dtype=torch.int32, device=device)

    def seconds(self, call: Callable[[], Any]) -> float:
        # Read and written: memset's stores would go around the cache.
        self._evicting.add_(1)
        if self._device.type == "cpu":
            start = time.perf_counter()
            result = call()
            seconds = time.perf_counter() - start
            del result  # given back after the clock has stopped, for every provider
            return seconds
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        # The device waits while python enqueues: gaps between launches are not the kernels' time.
        torch.cuda._sleep(SLEEP_CYCLES)
        begin.record()
        result = call()
        end.record()
        end.synchronize()
        del result
        return begin.elapsed_time(end) / 1e3


def interleaved(
    calls: dict[str, Callable[[], float]], seconds: float, bounds: tuple[int, int]
) -> dict[str, Spread]:
    """Every call once a round, after one warm-up round that is thrown away.

    Their order is drawn anew in each round: what one leaves behind (a warm cache, a busy disk)
    meets all of them. A call returns its own seconds. Ends after about `seconds`, within `bounds`
    on the rounds.
    """
    start = time.perf_counter()
    for call in calls.values():
        call()
    warm_up = time.perf_counter() - start
    fewest, most = bounds
    rounds = min(max(int(seconds / warm_up), fewest), most)
    taken: dict[str, list[float]] = {name: [] for name in calls}
    shuffle = random.Random(0).sample
    for _ in range(rounds):
        for name in shuffle(list(calls), len(calls)):
            taken[name].append(calls[name]())
    return {name: spread(seconds) for name, seconds in taken.items()}


def copying(device: torch.device, num_bytes: int) -> Callable[[], torch.Tensor]:
    """Moves 2 * num_bytes: read once, written once."""
    source, target = (torch.ones(num_bytes // 4, device=device) for _ in range(2))
    return lambda: target.copy_(source)


def multiplying(device: torch.device, dtype: torch.dtype, size: int) -> Callable[[], torch.Tensor]:
    """2 * size ** 3 operations. Of random numbers: zeros multiply faster."""
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    return lambda: left @ right


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    """Norm of the difference over the norm of `expected` (fp64). NaN where `actual` has one."""
    parts = zip(
        torch.atleast_1d(actual).split(ROWS_AT_A_TIME),
        torch.atleast_1d(expected).split(ROWS_AT_A_TIME),
        strict=True,
    )
    square = sum(float((a.double() - e).square().sum()) for a, e in parts)
    return float(square**0.5 / torch.linalg.vector_norm(expected))


# -- memory: of a CUDA device in this process, of a CPU in a fresh one ----------------------------


def cuda_memory(prepare: Callable[[], None], call: Callable[[], Any]) -> Memory:
    prepare()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    result = call()
    torch.cuda.synchronize()
    memory = Memory(
        torch.cuda.max_memory_allocated() - before, torch.cuda.memory_allocated() - before
    )
    del result
    return memory


def resident_memory(prepare: Callable[[], None], call: Callable[[], Any]) -> Memory:
    """The kernel's own count of this process's pages, so scratch memory of any library is in it.

    Warm-up first: code, thread pools and compiled kernels are no part of a step. Only for a
    process that was started with COUNTED_ENVIRONMENT.
    """
    for _ in range(2):
        prepare()
        call()
    prepare()
    _give_back()
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from here
    before = _status_bytes("VmRSS")
    result = call()
    peak = _status_bytes("VmHWM") - before
    _give_back()
    memory = Memory(peak, max(_status_bytes("VmRSS") - before, 0))
    del result
    return memory


def memory_in_child(words: Sequence[str]) -> Memory:
    """Of python started with `words`, whose last line of output is a Memory as JSON."""
    command = [sys.executable, *words]
    environment = {**os.environ, **COUNTED_ENVIRONMENT}
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if output.returncode != 0:
        raise RuntimeError(f"exit code {output.returncode} of {command}\n{output.stderr[-2000:]}")
    return Memory(*json.loads(output.stdout.splitlines()[-1]))


def _give_back() -> None:
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)


def _status_bytes(field: str) -> int:
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024
    raise LookupError(f"no {field} in /proc/self/status")


def _cache_bytes(device: torch.device) -> int:
    """Of the last level, doubled on a GPU, where eviction is not by age alone."""
    if device.type == "cuda":
        return 2 * torch.cuda.get_device_properties(device).L2_cache_size
    sizes = Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")
    kibibytes = [int(size.read_text().rstrip("K\n")) for size in sizes]
    return max(kibibytes, default=32 << 10) * 1024
