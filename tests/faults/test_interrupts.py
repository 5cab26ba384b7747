"""Ctrl-C, wherever it falls: exit code 130, no failed save, and what was saved before stays."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from faults.harness import Config, Ranks, finish, resumed

from bigft.cli import main
from bigft.config.exit_codes import EXIT_INTERRUPTED
from bigft.runtime import failpoints
from bigft.runtime.run_directory import RunDirectory

# (where a rank is held, which rank: only the first one exports). A shard is written by C++, which
# calls back: out of there no exception of Python's comes as it was.
PLACES = {
    "step": ("step.forward=stop@9", -1),
    "evaluation": ("evaluate.forward=stop@9", -1),
    "write of a shard": ("checkpoint.write=stop@9", -1),
    "fsync of a shard": ("checkpoint.fsync=stop@1", -1),
    "export": ("export.sync=stop@1", 0),
}
CASES = [
    *((place, 2) for place in PLACES),
    ("write of a shard", 1),
    ("export", 1),
]


@pytest.mark.distributed
@pytest.mark.parametrize(("place", "num_ranks"), CASES)
def test_an_interrupt_ends_all_ranks_of_a_run(
    place: str,
    num_ranks: int,
    config_for: Callable[..., Config],
    write_data: Callable[..., Path],
) -> None:
    data = write_data([3, 5, 8, 2])
    keys: dict[str, Any] = {
        "data__validation_file": [str(data)],
        "train__max_steps": 2,
        "train__save_strategy": "steps",
        "train__save_steps": 2,
    }
    config = config_for("run", data, **keys)
    failpoint, rank = PLACES[place]
    rank %= num_ranks
    with Ranks(config, num_ranks, failpoints=f"{failpoint}#{rank}") as ranks:
        ranks.wait_until_held(rank)
        for each in range(num_ranks):
            ranks.send(each, signal.SIGINT)
        ranks.send(rank, signal.SIGCONT)
        assert ranks.wait() == [EXIT_INTERRUPTED] * num_ranks, ranks.output()
    assert "NOT saved" not in ranks.output()
    directory = RunDirectory(config["train"]["output_dir"])
    is_saved = place == "export"
    run = directory.read()
    assert (run["status"], run["why"]) == ("resumable" if is_saved else "failed", "Ctrl-C")
    assert (run["exit_code"], run["crashed"]) == (EXIT_INTERRUPTED, False)
    assert [step for step, _ in directory.checkpoints()] == [2] * is_saved
    assert not directory.model.exists()
    if place == "export":
        finish(resumed(config), num_ranks)
        assert directory.model.exists()


@pytest.fixture
def interrupted_at(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """`interrupted_at(place)`: this process is, the first time that it comes there."""
    yield lambda place: failpoints.arm(f"{place}=interrupt@1")
    failpoints.arm("")


@pytest.mark.parametrize("words", [["check"], ["train", "--nproc", "1"], ["train", "--nproc", "2"]])
def test_an_interrupt_while_data_is_prepared_ends_the_verb(
    place: Path, words: list[str], interrupted_at: Callable[[str], None]
) -> None:
    interrupted_at("data.rename")
    assert main([words[0], "config.yaml", *words[1:]]) == EXIT_INTERRUPTED
    assert not Path("out/run.json").exists()
