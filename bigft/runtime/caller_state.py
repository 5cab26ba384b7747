"""What a run changes in its process, put back: for those who call bigft from Python."""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from bigft.runtime.logs import NOISY
from bigft.runtime.remote_code import KERNELS
from bigft.runtime.signals import STOP_SIGNALS, is_main_thread

BARS = (
    "transformers.utils.logging"  # says whether transformers draws progress bars; may be unloaded
)


@contextmanager
def left_as_found() -> Iterator[None]:
    """After the block the environment, umask, signal handlers, logging, random state, torch's
    deterministic mode and its threads are what they were, however it ends. Imports torch.

    Of a GPU the random state is put back where CUDA was in use before.
    """
    with _environment(), _umask(), _signals(), _logging(), _interpreter(), _torch(), _random():
        yield


@contextmanager
def _environment() -> Iterator[None]:
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        for name, value in before.items():
            if os.environ.get(name) != value:
                os.environ[name] = value


@contextmanager
def _umask() -> Iterator[None]:
    before = os.umask(0o077)
    os.umask(before)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def _signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *STOP_SIGNALS)}
    try:
        yield
    finally:
        for number, handler in before.items():
            # None: of C code, which Python can neither change nor put back.
            changed = signal.getsignal(number) is not handler
            if changed and handler is not None and is_main_thread():
                signal.signal(number, handler)


@contextmanager
def _logging() -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in ("", "bigft", *NOISY)]
    before = [(each, list(each.handlers), each.level, each.propagate) for each in loggers]
    last_resort, show = logging.lastResort, warnings.showwarning
    filters = list(last_resort.filters) if last_resort else []
    draws_bars = (module := sys.modules.get(BARS)) is None or module.is_progress_bar_enabled()
    try:
        with warnings.catch_warnings():  # puts the filters back
            yield
    finally:
        for logger, handlers, level, propagate in before:
            for handler in [each for each in logger.handlers if each not in handlers]:
                handler.close()
            logger.handlers[:] = handlers
            logger.setLevel(level)
            logger.propagate = propagate
        if last_resort:
            last_resort.filters[:] = filters
        if warnings.showwarning is not show:
            logging.captureWarnings(False)
        if draws_bars and (module := sys.modules.get(BARS)):
            module.enable_progress_bar()


@contextmanager
def _interpreter() -> Iterator[None]:
    """What `fetch_no_code` hides, and the hook that torch puts before errors to name the rank."""
    was_there, before, hook = KERNELS in sys.modules, sys.modules.get(KERNELS), sys.excepthook
    try:
        yield
    finally:
        sys.excepthook = hook
        if was_there:
            sys.modules[KERNELS] = before  # type: ignore[assignment]
        else:
            sys.modules.pop(KERNELS, None)


@contextmanager
def _torch() -> Iterator[None]:
    """And no process group of a run that failed stays, which would refuse the next one."""
    import torch
    import torch.distributed as dist

    from bigft.runtime.process_group import dissolve

    linear = torch.nn.functional.linear
    deterministic = torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    threads, had_group = torch.get_num_threads(), dist.is_initialized()
    try:
        yield
    finally:
        torch.nn.functional.linear = linear  # ZeRO-3 leaves one of its own there
        _forget_modules()
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)
        # Leaving other ranks may wait for them: a rank that failed is to end.
        if not had_group and dist.is_initialized() and dist.get_world_size() == 1:
            dissolve()


def _forget_modules() -> None:
    """DeepSpeed's ZeRO-3 keeps the last model: on a stack, and in caches of a class's methods."""
    zero = "deepspeed.runtime.zero"
    if offload := sys.modules.get(f"{zero}.parameter_offload"):
        getattr(offload, "FWD_MODULE_STACK", []).clear()
    coordinator = sys.modules.get(f"{zero}.partitioned_param_coordinator")
    for method in vars(getattr(coordinator, "PartitionedParameterCoordinator", object)).values():
        for cell in getattr(method, "__closure__", None) or ():
            getattr(cell.cell_contents, "cache_clear", lambda: None)()


@contextmanager
def _random() -> Iterator[None]:
    import numpy as np
    import torch

    python, numpy = random.getstate(), np.random.get_state()
    devices = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else ()
    try:
        with torch.random.fork_rng(devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
