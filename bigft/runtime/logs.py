"""One log file per rank; the terminal hears of warnings on the first rank only."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
NOISY = ("DeepSpeed", "deepspeed", "transformers", "datasets", "torch")


def quiet_libraries() -> None:
    """Keeps what libraries warn of off the terminal: a user of bigft can do nothing about it. Logs
    have it; `python -W default` shows warnings."""
    if not sys.warnoptions:
        logging.captureWarnings(True)
    if logging.lastResort is not None:  # for loggers of which nobody takes anything yet
        logging.lastResort.addFilter(_of_bigft)


def _of_bigft(record: logging.LogRecord) -> bool:
    return record.name.startswith("bigft")


def log_to(path: Path, is_first: bool) -> None:
    """Sends this process's log to `path`, appending; warnings of the first rank also to stderr."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = logging.FileHandler(path, encoding="utf-8")
    file.setFormatter(logging.Formatter(FORMAT))
    root = logging.getLogger()
    root.addHandler(file)
    logging.getLogger("bigft").setLevel(logging.INFO)
    for name in NOISY:  # their own handlers write to the terminal of every rank
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
    if is_first:
        terminal = logging.StreamHandler(sys.stderr)
        terminal.setLevel(logging.WARNING)
        terminal.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))
        terminal.addFilter(_of_bigft)
        root.addHandler(terminal)
    logging.captureWarnings(True)
