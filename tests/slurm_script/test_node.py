"""`bigft node`: real processes, one per node, on this machine."""

from __future__ import annotations

import contextlib
import io
import os
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.distributed.ranks import run_ranks

CONFIG = """\
task: token-classification
model: {model_name_or_path: model}
data: {train_file: train.conll}
train: {output_dir: runs/out}
"""
Told = list[tuple[int, str, str]]


def node(world: Any, port: int, words: dict[int, list[str]], places: list[str]) -> Any:
    """One task of `srun --ntasks-per-node=1 bigft node` in a job of two nodes: exit code, output,
    errors. The process is that of a rank; its own group is left first."""
    from bigft.cli import main
    from bigft.runtime import nodes, process_group

    process_group.leave()
    nodes.SECONDS_TO_SAY_SO = nodes.SECONDS_TO_SEE_A_FILE = nodes.SECONDS_TO_LEAVE = 2.0
    rank = str(world.rank if len(places) > 1 else int(places[0][-1]) - 1)
    job = {"SLURM_STEP_ID": "0", "SLURM_JOB_ID": "7", "SLURM_NTASKS": "2", "SLURM_LOCALID": "0"}
    job |= {"SLURM_PROCID": rank, "SLURM_NODEID": rank, "SLURM_STEP_TASKS_PER_NODE": "1(x2)"}
    job |= {"BIGFT_HOSTS": "n1\nn2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"):
        os.environ.pop(name, None)
    os.environ.update(job)
    os.chdir(places[world.rank])
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as errors,
    ):
        code = main(["node", "config.yaml", "--timeout", "1", *words.get(int(rank), [])])
    return code, out.getvalue().strip(), errors.getvalue().strip()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("n1", "n2"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.yaml").write_text(CONFIG)
    return tmp_path


@pytest.fixture
def port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        number: int = listener.getsockname()[1]
        return number


def ask(port: int, *places: Path, words: dict[int, list[str]] | None = None) -> Told:
    """What nodes in these directories say; in one called n2, there is only the second."""
    told: Told = run_ranks(node, len(places), port, words or {}, [*map(str, places)])
    return told


def test_two_nodes_that_are_well_are_ready_and_nothing_is_left(place: Path, port: int) -> None:
    first, second = ask(port, place / "n1", place / "n1")
    assert (first[0], second) == (0, (0, "", ""))
    assert first[1].startswith("n1, n2: ready (bigft ")
    assert [path.name for path in (place / "n1").iterdir()] == ["config.yaml"]


def test_a_node_with_another_config_is_named_once(place: Path, port: int) -> None:
    words = {1: ["train.seed=1"]}
    first, second = ask(port, place / "n1", place / "n1", words=words)
    assert first[0] == 2
    assert first[2].startswith("n2: config ")
    assert second == (2, "", "")


def test_a_node_that_reads_no_config_is_named(place: Path, port: int) -> None:
    (place / "n2" / "config.yaml").unlink()
    first, _ = ask(port, place / "n1", place / "n2")
    assert first[0] == 2
    assert first[2].startswith("n2: config.yaml: ")


def test_a_node_that_does_not_see_what_the_first_one_writes_is_named(
    place: Path, port: int
) -> None:
    """As where a directory of that name is on each node's own disk."""
    first, _ = ask(port, place / "n1", place / "n2")
    assert first[0] == 2
    assert first[2].startswith(f"n2: does not see what the first node writes to {place}/n2; ")


def test_a_node_that_never_answers_is_named(place: Path, port: int) -> None:
    ((code, _, told),) = ask(port, place / "n1")
    assert code == 2
    assert told.startswith("n2: did not answer within 3 s")


def test_a_first_node_that_cannot_be_reached_is_told_with_the_systems_reason(
    place: Path, port: int
) -> None:
    ((code, _, told),) = ask(port, place / "n2")
    assert code == 2
    assert told.startswith(f"n2: cannot reach 127.0.0.1:{port} (Connection refused); ")


def test_a_port_that_is_taken_is_told(place: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("", 0))
        listener.listen()
        number = listener.getsockname()[1]
        ((code, _, told),) = ask(number, place / "n1")
    assert code == 2
    assert told.startswith(f"n1: cannot listen at 127.0.0.1:{number}: ")
    assert "set MASTER_PORT in site.sh" in told
