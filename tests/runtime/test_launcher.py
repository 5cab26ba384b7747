"""Who am I, as torchrun, deepspeed and Slurm say it, and what a process should start with."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest
from waiting import PATIENCE

from bigft.config.errors import BadInput
from bigft.runtime.environment import environment_of_ranks, process_settings
from bigft.runtime.launcher import Launch, detect, free_port

BY_LAUNCHER = {
    "RANK": "5",
    "LOCAL_RANK": "1",
    "WORLD_SIZE": "8",
    "MASTER_ADDR": "n1",
    "MASTER_PORT": "29500",
}
BY_SLURM = {
    "SLURM_JOB_ID": "70123",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "3",
    "SLURM_NTASKS": "6",
    "SLURM_STEP_TASKS_PER_NODE": "2,1(x2),2",
    "MASTER_ADDR": "n1",
}
ONE_TASK = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_ID": "0",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NTASKS": "1",
}
TERMINAL = {"SLURM_PTY_PORT": "40211"}
BY_HAND = {"MASTER_ADDR": "n1", "SLURM_JOB_ID": "7", "SLURM_NTASKS": "6", "SLURM_PROCID": "0"}


def without(environ: dict[str, str], name: str) -> dict[str, str]:
    return {key: value for key, value in environ.items() if key != name}


@pytest.mark.parametrize(
    ("more", "kind", "local_world_size"),
    [
        ({"LOCAL_WORLD_SIZE": "4", "TORCHELASTIC_RUN_ID": "none"}, "torchrun", 4),
        ({"LOCAL_SIZE": "4", "CROSS_RANK": "1"}, "deepspeed", 4),
        ({"LOCAL_WORLD_SIZE": "4"}, "environment", 4),
        ({"LOCAL_WORLD_SIZE": "4", **without(BY_SLURM, "MASTER_ADDR")}, "environment", 4),
    ],
)
def test_launchers_variables_are_read(
    more: dict[str, str], kind: str, local_world_size: int
) -> None:
    assert detect({**BY_LAUNCHER, **more}) == Launch(5, 1, 8, local_world_size, "n1", 29500, kind)


def test_a_task_of_a_slurm_step_is_a_rank() -> None:
    assert detect(BY_SLURM) == Launch(5, 0, 6, 2, "n1", 15000 + 70123 % 15000, "slurm")


def test_slurms_port_can_be_chosen() -> None:
    launch = detect({**BY_SLURM, "MASTER_PORT": "1234"})
    assert launch is not None
    assert launch.master_port == 1234


def test_a_slurm_step_of_one_node_needs_no_master_addr() -> None:
    one_node = {**without(BY_SLURM, "MASTER_ADDR"), "SLURM_STEP_TASKS_PER_NODE": "6"}
    launch = detect({**one_node, "SLURM_NODEID": "0", "WORLD_SIZE": "6"})
    assert launch is not None
    assert (launch.master_addr, launch.local_world_size) == ("127.0.0.1", 6)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        BY_HAND,
        {**BY_SLURM, "SLURM_STEP_ID": "4294967291"},
        {**BY_SLURM, "SLURM_STEP_ID": "4294967290"},
    ],
    ids=["bare", "batch script", "batch step", "interactive step"],
)
def test_a_process_that_no_launcher_started_is_by_hand(environ: dict[str, str]) -> None:
    assert detect(environ) is None


@pytest.mark.parametrize(
    ("environ", "nproc"),
    [({**ONE_TASK, **TERMINAL}, None), ({**ONE_TASK, **TERMINAL}, 2), (ONE_TASK, 2)],
    ids=["srun --pty bash", "srun --pty bash, --nproc", "srun -n1, --nproc"],
)
def test_the_only_task_of_a_step_may_start_ranks(
    environ: dict[str, str], nproc: int | None
) -> None:
    assert detect(environ, nproc) is None


def test_the_only_task_of_a_step_is_one_rank_where_nothing_else_is_said() -> None:
    launch = detect(ONE_TASK)
    assert launch is not None
    assert (launch.kind, launch.world_size) == ("slurm", 1)


@pytest.mark.parametrize(
    ("environ", "what"),
    [
        ({**BY_LAUNCHER, "TORCHELASTIC_RUN_ID": "none"},
         "by RANK this process is rank 5 of 8 that torchrun started; leave --nproc out; "
         "if there are no such ranks, unset RANK LOCAL_RANK WORLD_SIZE MASTER_ADDR MASTER_PORT"),
        ({**BY_LAUNCHER, "LOCAL_SIZE": "4"}, "by RANK this process is rank 5 of 8 that deepspeed"),
        (BY_LAUNCHER | {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"},
         "by RANK this process is rank 0 of 1 that another launcher started"),
        ({**ONE_TASK, **TERMINAL, **BY_LAUNCHER}, "by RANK this process is rank 5 of 8"),
        (BY_SLURM, "by SLURM_STEP_ID this process is rank 5 of 6 that srun started; "
         "leave --nproc out; if there are no such ranks, unset SLURM_STEP_ID"),
        ({**BY_SLURM, **TERMINAL}, "by SLURM_STEP_ID this process is rank 5 of 6"),
    ],
)  # fmt: skip
def test_ranks_to_start_beside_those_of_a_launcher_are_refused(
    environ: dict[str, str], what: str
) -> None:
    with pytest.raises(BadInput) as refused:
        detect(environ, 3)
    assert f"--nproc: 3, but {what}" in str(refused.value)


@pytest.mark.parametrize(("environ", "nproc"), [(BY_LAUNCHER, 8), (BY_SLURM, 2), (BY_SLURM, 6)])
def test_the_number_of_ranks_that_a_launcher_started_is_no_contradiction(
    environ: dict[str, str], nproc: int
) -> None:
    assert detect(environ, nproc) == detect(environ)


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"])
def test_a_missing_launcher_variable_is_named(name: str) -> None:
    with pytest.raises(BadInput, match=f"^environment: {name}: not set, although") as caught:
        detect(without(BY_LAUNCHER, name))
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({**BY_LAUNCHER, "RANK": "8"}, r"environment: RANK: 8 is not below WORLD_SIZE \(8\)"),
        (
            {**BY_LAUNCHER, "LOCAL_WORLD_SIZE": "1"},
            r"environment: LOCAL_RANK: 1 is not below LOCAL_WORLD_SIZE \(1\)",
        ),
        ({**BY_LAUNCHER, "RANK": "-1"}, "environment: RANK: '-1' is not a number"),
        ({**BY_LAUNCHER, "MASTER_PORT": "x"}, "environment: MASTER_PORT: 'x' is not a number"),
        ({"WORLD_SIZE": "2"}, "environment: RANK: not set, although WORLD_SIZE is"),
        (without(BY_SLURM, "SLURM_NTASKS"), "environment: SLURM_NTASKS: not set, although"),
        (without(BY_SLURM, "MASTER_ADDR"), "MASTER_ADDR: not set, in a step of 4 nodes"),
        ({**BY_SLURM, "WORLD_SIZE": "2"}, "environment: WORLD_SIZE: 2, but SLURM_NTASKS is 6"),
        ({**BY_SLURM, "SLURM_PROCID": "6"}, r"SLURM_PROCID: 6 is not below SLURM_NTASKS \(6\)"),
    ],
)  # fmt: skip
def test_contradictions_are_refused_by_name(environ: dict[str, str], message: str) -> None:
    with pytest.raises(BadInput, match=message):
        detect(environ)


def test_a_rank_of_our_own_recognises_itself() -> None:
    launch = Launch(1, 1, 2, 2, "127.0.0.1", 4321, "environment")
    assert detect(Launch.local(2, 1, 4321).environment()) == launch


@pytest.mark.parametrize(("cores", "world", "threads"), [(8, 2, "4"), (7, 2, "3"), (2, 4, "1")])
def test_ranks_share_the_cores(
    cores: int, world: int, threads: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(range(cores)))
    assert environment_of_ranks(world, {})["OMP_NUM_THREADS"] == threads
    assert environment_of_ranks(world, {"OMP_NUM_THREADS": "17"})["OMP_NUM_THREADS"] == "17"


def test_a_free_port_can_be_listened_on() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free_port()))


def test_settings_of_the_user_stay() -> None:
    own = {"MALLOC_TOP_PAD_": "1", "TOKENIZERS_PARALLELISM": "true", "OMP_WAIT_POLICY": "active"}
    assert process_settings(own) == {
        "MALLOC_MMAP_THRESHOLD_": "1073741824",
        "MALLOC_TRIM_THRESHOLD_": "4294967296",
    }


@pytest.mark.parametrize("name", ["GOMP_SPINCOUNT", "OMP_WAIT_POLICY"])
def test_how_threads_wait_is_the_users_to_say(name: str) -> None:
    assert "GOMP_SPINCOUNT" in process_settings({})
    assert "GOMP_SPINCOUNT" not in process_settings({name: "passive"})


REEXEC = """
import json, os, sys
from bigft.runtime.environment import process_settings, reexec_with
print("start", os.getpid(), flush=True)
reexec_with({**process_settings(os.environ), **json.loads(sys.argv[1])})
print(os.environ["MALLOC_TOP_PAD_"], os.environ["TOKENIZERS_PARALLELISM"], sys.argv[2])
"""


def run_reexec(environ: dict[str, str], always: dict[str, str]) -> list[str]:
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("MALLOC_", "GOMP_"))
    }
    return subprocess.run(
        [sys.executable, "-c", REEXEC, json.dumps(always), "a b"],
        env={**clean, "TOKENIZERS_PARALLELISM": "true", **environ},
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    ).stdout.splitlines()


def test_a_process_without_the_malloc_settings_starts_anew_once_under_the_same_id() -> None:
    first, second, result = run_reexec({}, always={})
    assert first == second
    assert result == "268435456 true a b"


def test_a_second_start_that_does_not_take_does_not_loop() -> None:
    assert len(run_reexec({}, always={"MALLOC_TOP_PAD_": "1"})) == 3


def test_a_process_that_has_the_malloc_settings_goes_on() -> None:
    assert len(run_reexec(process_settings({}), always={})) == 2
