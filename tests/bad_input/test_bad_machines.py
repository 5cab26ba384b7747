"""What the machine lacks is refused before training, and a refused start changes no older run."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from bigft.cli import main
from bigft.config import BadInput
from bigft.config.sections import TrainConfig
from bigft.runtime import lock, machine, run_directory
from bigft.runtime.launcher import Launch
from bigft.runtime.machine import check_accelerators, check_port
from bigft.training import preflight

Refused = Callable[..., list[str]]
Notes = Callable[..., list[str]]


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


# -- accelerators and ports -----------------------------------------------------------------------


NO_GPU = (
    "true, but this machine has no GPU; "
    "set train.bf16 instead, which CPUs have, or start on a machine with a GPU"
)


def test_fp16_without_a_gpu(refused: Refused) -> None:
    assert refused("train.fp16=true") == [f"command line: train.fp16=true: {NO_GPU}"]


def test_what_this_machine_lacks_is_noted_where_the_run_has_others(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["check", "config.yaml", "train.fp16=true", "--nproc", "4", "--nodes", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"note: refused on this machine: train.fp16: {NO_GPU}",
        "ok, but not on this machine",
    ]


def test_check_refuses_more_ranks_than_gpus(
    refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "choose_accelerator", lambda: "cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert refused(verb="check") == [
        "ranks: 1 on this machine, which has 0 GPUs; start one rank per GPU at most (--nproc)"
    ]


@pytest.mark.parametrize(("local_ranks", "is_refused"), [(2, False), (3, True)])
def test_more_ranks_than_gpus(
    monkeypatch: pytest.MonkeyPatch, local_ranks: int, is_refused: bool
) -> None:
    monkeypatch.setattr(machine, "choose_accelerator", lambda: "cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    launch = Launch(0, 0, 8, local_ranks, "127.0.0.1", 1, "torchrun")
    train = TrainConfig(output_dir="out")
    if not is_refused:
        check_accelerators(train, launch)
        return
    with pytest.raises(BadInput, match=r"^ranks: 3 on this machine, which has 2 GPUs; start one"):
        check_accelerators(train, launch)


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_that_is_taken(
    refused: Refused, monkeypatch: pytest.MonkeyPatch, taken_port: int
) -> None:
    variables = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1, "MASTER_PORT": taken_port}
    for name, value in variables.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    assert refused(verb="train") == [
        f"environment: MASTER_PORT: cannot listen on port {taken_port}: Address already in use; "
        "set another (in site.sh, deepspeed --master_port, torchrun --master-port)"
    ]


def test_the_port_of_torchruns_own_agent_is_not_refused(taken_port: int) -> None:
    launch = Launch(0, 0, 2, 2, "127.0.0.1", taken_port, "torchrun")
    check_port(launch, {"TORCHELASTIC_USE_AGENT_STORE": "True"})


def test_a_port_that_cannot_be() -> None:
    with pytest.raises(BadInput, match="cannot listen on port 70000: ports go up to 65535"):
        check_port(Launch(0, 0, 1, 1, "127.0.0.1", 70000, "environment"), {})


# -- disks and directories ------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["file", "file/out"])
def test_a_file_in_the_way_of_the_run(place: Path, refused: Refused, path: str) -> None:
    Path("file").write_text("")
    assert refused(f"train.output_dir={path}") == [
        f"command line: train.output_dir={path}: cannot write to {path}: Not a directory; "
        "choose a directory that you may write to"
    ]


def test_a_directory_without_permission(refused: Refused, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_directory.os, "access", lambda path, mode: False)
    assert refused() == [
        "config.yaml:8: train.output_dir: cannot write to out: Permission denied; "
        "choose a directory that you may write to"
    ]


def test_a_cache_that_cannot_be_written(
    place: Path, refused: Refused, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("file").write_text("")
    monkeypatch.setenv("BIGFT_CACHE", "file")
    assert refused() == [
        "file/prepared: prepared data cannot be written: Not a directory; "
        "set BIGFT_CACHE to a directory that is writable and has space"
    ]


def test_a_disk_too_full_for_the_checkpoints(
    refused: Refused, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    parameters = sum(t.numel() for t in load_file("model/model.safetensors").values())
    checkpoint, export = parameters * (4 + 8), parameters * 4  # fp32 weights, Adam's two means
    free = 2 * checkpoint + export  # of 3 epochs
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    (answer,) = refused()
    assert answer.startswith("config.yaml:8: train.output_dir: 3 checkpoints and the model need ")
    assert answer.endswith("; set train.save_total_limit, or choose another disk")
    assert notes("train.save_total_limit=1") == []
    assert notes("train.save_strategy=no") == []
    free -= 1
    (answer,) = refused("train.save_total_limit=1")
    assert "train.output_dir: 2 checkpoints and the model need" in answer


def test_checkpoints_that_are_all_kept_are_told_with_their_size(
    notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "MANY_BYTES", 1)
    (told,) = [note for note in notes() if "checkpoints" in note]
    assert told.startswith("3 checkpoints of 0.0 GB or more each are kept, 0.0 GB in all; ")
    assert told.endswith("train.save_total_limit: 2 keeps the newest two and the best")
    for fewer in (
        "train.save_total_limit=2",
        "train.num_train_epochs=2",
    ):
        assert [note for note in notes(fewer) if "checkpoints" in note] == []


# -- older runs -----------------------------------------------------------------------------------


@pytest.fixture
def finished_run(place: Path) -> Path:
    run = Path("out")
    for name, content in {
        "run.json": json.dumps({"status": "finished", "why": "", "exit_code": 0}),
        "config.yaml": "task: token-classification\n",
        "metrics.jsonl": '{"event": "end"}\n',
        "all_results.json": "{}",
        "model/model.safetensors": "weights",
        "logs/rank-00000.log": "",
        "checkpoint-3/COMMIT": "",
    }.items():
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text(content)
    return run


def test_a_finished_run_is_not_overwritten(finished_run: Path, refused: Refused) -> None:
    before = contents(finished_run)
    assert refused() == [
        "config.yaml:8: train.output_dir: out holds a finished run; "
        "choose another train.output_dir or set train.resume_from_checkpoint=true"
    ]
    assert contents(finished_run) == before


@pytest.mark.parametrize(
    "word", ["data.train_file=none", "train.fp16=true", "optim.class_weights={X: 2}"]
)
def test_a_run_to_continue_stays_as_it_is_if_the_start_is_refused(
    finished_run: Path, refused: Refused, word: str
) -> None:
    before = contents(finished_run)
    assert refused(word, "train.resume_from_checkpoint=true", verb="train")
    assert contents(finished_run) == before


def test_a_refused_start_of_several_ranks_leaves_no_run_behind(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "config.yaml", "data.train_file=none", "--nproc", "2"]) == 2
    assert "none: no such file" in capsys.readouterr().err
    assert not Path("out").exists()


def test_a_checkpoint_that_is_none(place: Path, refused: Refused) -> None:
    Path("nothing").mkdir()
    (answer,) = refused("train.resume_from_checkpoint=nothing")
    assert answer.startswith(
        f"command line: train.resume_from_checkpoint=nothing: {place / 'nothing'}: MANIFEST.json: "
    )
    assert answer.endswith("; restore it, or name another checkpoint-<step>")


@pytest.fixture
def living_process() -> Iterator[int]:
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process.pid
        process.kill()


def test_a_directory_that_another_run_holds(
    place: Path, refused: Refused, living_process: int
) -> None:
    stat = Path(f"/proc/{living_process}/stat").read_text().rpartition(")")[2].split()
    host = socket.gethostname()
    holder = {"pid": living_process, "pid_started": int(stat[19]), "host": host}
    of_slurm = {"space": lock.Holder.this_process().space, "job_id": "", "restart_count": 0}
    Path("out").mkdir()
    Path("out/LOCK").write_text(json.dumps({**holder, **of_slurm, "token": "0123"}))
    before = contents(Path("out"))
    assert refused() == [
        f"config.yaml:8: train.output_dir: out is held by process {living_process} on {host}, "
        "which is running; wait for it, stop it, or choose another train.output_dir"
    ]
    assert contents(Path("out")) == before
