"""Every rank logs to its own file; the terminal hears of bigft's warnings, once."""

from __future__ import annotations

import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from bigft.runtime.logs import NOISY, log_to


@pytest.fixture(autouse=True)
def _loggers_come_back() -> Iterator[None]:
    names = (None, "bigft", *NOISY)
    before = {name: _settings(logging.getLogger(name)) for name in names}
    logging.captureWarnings(False)  # a verb that a test has called left them captured
    yield
    logging.captureWarnings(False)
    for name, (level, handlers, propagate) in before.items():
        logger = logging.getLogger(name)
        logger.setLevel(level)
        logger.handlers[:] = handlers
        logger.propagate = propagate


def _settings(logger: logging.Logger) -> tuple[int, list[logging.Handler], bool]:
    return logger.level, list(logger.handlers), logger.propagate


def speak() -> None:
    logging.getLogger("bigft.data.cache").info("preparing")
    logging.getLogger("bigft.data.cache").warning("damaged")
    logging.getLogger("DeepSpeed").warning("of DeepSpeed")
    warnings.warn("of a library", UserWarning, stacklevel=1)


def test_the_first_rank_tells_the_terminal_of_bigfts_warnings_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log_to(tmp_path / "logs" / "rank-00000.log", is_first=True)
    speak()
    assert capsys.readouterr().err.splitlines() == ["WARNING bigft.data.cache: damaged"]
    text = (tmp_path / "logs" / "rank-00000.log").read_text()
    for said in ("INFO bigft.data.cache: preparing", "damaged", "of DeepSpeed", "of a library"):
        assert said in text


def test_other_ranks_are_silent_on_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log_to(tmp_path / "rank-00001.log", is_first=False)
    speak()
    assert capsys.readouterr().err == ""
    assert "damaged" in (tmp_path / "rank-00001.log").read_text()


def test_libraries_lose_their_own_way_to_the_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noisy = logging.getLogger("DeepSpeed")
    noisy.addHandler(logging.StreamHandler())
    noisy.propagate = False
    log_to(tmp_path / "log", is_first=True)
    noisy.error("loud")
    assert capsys.readouterr().err == ""
    assert "ERROR DeepSpeed: loud" in (tmp_path / "log").read_text()


def test_before_a_log_is_kept_libraries_are_silent_and_bigft_is_heard() -> None:
    code = """
import logging, warnings
from bigft.cli import main
main(["--version"])
warnings.warn("of a library", FutureWarning)
logging.getLogger("bitsandbytes").warning("of a library")
logging.getLogger("bigft.data.cache").warning("damaged")
"""

    def said(*options: str) -> list[str]:
        command = [sys.executable, *options, "-c", code]
        return subprocess.run(command, capture_output=True, text=True).stderr.splitlines()

    assert said() == ["damaged"]
    assert "FutureWarning: of a library" in said("-W", "default")[0]


def test_a_log_is_continued(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("of the first start\n")
    log_to(tmp_path / "log", is_first=False)
    logging.getLogger("bigft").warning("of the second")
    assert len((tmp_path / "log").read_text().splitlines()) == 2
