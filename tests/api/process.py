"""What of its process a run must leave as it was."""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import transformers

from bigft.cli import main
from bigft.runtime.caller_state import left_as_found
from bigft.runtime.logs import NOISY

CONFIG: dict[str, Any] = {
    "task": "token-classification",
    "model": {"model_name_or_path": Path("model")},
    "data": {"train_file": ("train.jsonl",), "test_file": ["test.jsonl"]},
    "train": {"output_dir": "out", "max_steps": np.int64(3), "per_device_train_batch_size": 1},
}


@contextmanager
def nothing_changed() -> Iterator[None]:
    """The block leaves its process as it found it."""
    before = _process()
    yield
    after = _process()
    assert {name: after[name] for name in after if after[name] != before[name]} == {}


def _process() -> dict[str, Any]:
    mask = os.umask(0o077)
    os.umask(mask)
    loggers = {name: logging.getLogger(name) for name in ("", "bigft", *NOISY)}
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
    name, keys, *place = np.random.get_state()
    return {
        "environment": dict(os.environ),
        "umask": mask,
        "handlers": {number: signal.getsignal(number) for number in numbers},
        "logging": {
            name: (list(logger.handlers), logger.level, logger.propagate)
            for name, logger in loggers.items()
        },
        "last resort": list(logging.lastResort.filters) if logging.lastResort else None,
        "warnings": (warnings.showwarning, list(warnings.filters)),
        "products": torch.nn.functional.linear,
        "errors": sys.excepthook,
        "python": random.getstate(),
        "numpy": (name, np.asarray(keys).tolist(), place),
        "torch": torch.get_rng_state().tolist(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "threads": torch.get_num_threads(),
        "process group": dist.is_initialized(),
        "bars": transformers.utils.logging.is_progress_bar_enabled(),
        "kernels": sys.modules.get("kernels", "not imported"),
    }


def weights(run: str) -> bytes:
    return Path(run, "model", "model.safetensors").read_bytes()


def command(words: list[str]) -> int:
    """The exit code of `bigft ...` in this process, which is left as it was."""
    with left_as_found():
        return main(words)
