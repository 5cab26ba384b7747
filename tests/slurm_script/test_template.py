"""What stands in slurm/finetune.sh, and that docs/slurm.md explains it."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from slurm_script.stage import REPOSITORY, SCRIPT

from bigft.cli.job import MAX_IDLE_STARTS
from bigft.cli.submit import SIGNAL_SECONDS

TEXT = SCRIPT.read_text(encoding="utf-8")
DOCUMENT = (REPOSITORY / "docs" / "slurm.md").read_text(encoding="utf-8")
SBATCH_LINES = re.findall(r"^#SBATCH (.*)$", TEXT, flags=re.M)
LINES_BELOW = 150


@pytest.mark.parametrize("name", ["finetune.sh", "site.example.sh"])
def test_shellcheck_has_nothing_to_say(name: str) -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck on PATH (Debian: apt-get install shellcheck)")
    words = ["shellcheck", "--shell=bash", str(REPOSITORY / "slurm" / name)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_script_is_short() -> None:
    assert len(TEXT.splitlines()) < LINES_BELOW


def test_options_for_sbatch_are_literal() -> None:
    """sbatch expands nothing but its own %x and %j."""
    assert [line for line in SBATCH_LINES if re.search(r"[$`'\"\\ ]", line)] == []
    assert {"--requeue", "--open-mode=append", "--signal=B:USR1@180"} <= {*SBATCH_LINES}
    assert SIGNAL_SECONDS == 180  # what `bigft submit` takes it to be


def test_nothing_is_evaluated() -> None:
    assert not re.search(r"\b(eval|bash -c|sh -c)\b", TEXT)


def test_the_document_explains_every_line() -> None:
    table = DOCUMENT.partition("## Every line of the template")[2].partition("\n## ")[0]
    explained = set(re.findall(r"^\| (`[^|]*`) \|", table, flags=re.M))
    code = "\n".join(line for line in TEXT.splitlines() if not line.startswith("# "))
    options = set(re.findall(r"(?<=[ (])--(?:kill-on-bad-exit|wait)=\d+", code))
    exported = set(re.findall(r"\b(?:export )(\w+)", code))
    wanted = {*SBATCH_LINES, *options, *exported}
    assert {name for name in wanted if not any(name in row for row in explained)} == set()


def test_every_line_that_the_document_explains_is_there() -> None:
    table = DOCUMENT.partition("## Every line of the template")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]*`) \|", table, flags=re.M)
    names = [name.removesuffix(" ...") for row in rows for name in re.findall("`([^`]+)`", row)]
    assert len(names) > len(SBATCH_LINES)
    assert [name for name in names if name not in TEXT] == []


def test_the_document_has_the_limits_of_restarts() -> None:
    (restarts,) = re.findall(r"^MAX_RESTARTS=(\d+)", TEXT, flags=re.M)
    words = " ".join(DOCUMENT.split())
    assert re.search(rf"\b{restarts} restarts\b[^.]*\(`MAX_RESTARTS`\)", words)
    assert re.search(rf"\b{MAX_IDLE_STARTS} starts in a row\b", words)
