"""What a cluster does to jobs, done to jobs of two nodes: each goes on, to the last bit."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from slurm.harness import (
    SAVE_STEPS,
    STEPS,
    Cluster,
    assert_same_bits,
    send,
    wait_until,
    was_asked_to_stop,
)
from slurm.scene import Row, Scene

from bigft.runtime.run_directory import RunDirectory

pytestmark = pytest.mark.slurm

REQUEUED = "bigft: saved and requeued"
# From the loss of a node to the first step on others: promised are 60 s, which the table shows on a
# machine of its own; two cores that also do other work get more.
SECONDS_OF_NODE_LOSS = 90
# Slurm gives a node up after minutes unless the admin wants it sooner.
SOON = ("SlurmdTimeout=5", "MessageTimeout=3", "TCPTimeout=1", "KillWait=1")
NO_LAST_LINE = "(none: the batch host or its job is killed)"


def test_time_limit_saves_and_requeues(scene: Scene) -> None:
    scene.begin("ner", 2, "--time=30")
    ranks = scene.job.frozen(scene.run)
    # At most three minutes now, of which --signal keeps all for saving.
    scene.job.change("TimeLimit=3")
    wait_until("the warning", lambda: all(map(was_asked_to_stop, ranks.values())))
    scene.strike()
    send(signal.SIGCONT, ranks.values())
    scene.job.wait_for(REQUEUED)
    last_line = scene.job.last_line()
    scene.job.wait_for_state("PENDING")
    scene.job.change("TimeLimit=30")
    scene.goes_on("time limit", last_line)


@pytest.mark.parametrize("user_signal", [False, True], ids=["tasks", "user-signal"])
def test_preemption_saves_and_requeues(scene: Scene, user_signal: bool) -> None:
    """SIGTERM to the tasks, or what --signal says where the admin chose that."""
    options = ["SlurmctldParameters=preempt_send_user_signal"] if user_signal else []
    with scene.cluster.configured(*options):
        scene.begin("causal", 4 if user_signal else 2)
        ranks = scene.job.frozen(scene.run)
        scene.strike()
        urgent = ["--partition=high", "--nodes=4", "--exclusive", "--wrap=sleep 1"]
        scene.cluster.on("sbatch", "--output=/dev/null", *urgent)
        if user_signal:
            wait_until("USR1", lambda: all(map(was_asked_to_stop, ranks.values())))
            send(signal.SIGCONT, ranks.values())  # Slurm does when it sends SIGTERM
        scene.job.wait_for(REQUEUED)
        last_line = scene.job.last_line()
    scene.goes_on(f"preemption, {'user signal' if user_signal else 'SIGTERM to tasks'}", last_line)


def test_scancel_saves_and_another_sbatch_continues(scene: Scene) -> None:
    scene.begin("ner", 2)
    ranks = scene.job.frozen(scene.run)
    scene.strike()
    scene.cluster.on("scancel", scene.job.id)
    send(signal.SIGCONT, ranks.values())
    assert scene.job.wait_for_state("CANCELLED")
    last_line = scene.job.last_line()
    assert last_line.startswith("bigft: saved; ")
    scene.job = scene.cluster.submit(scene.run)
    scene.goes_on("scancel, then sbatch", last_line)


def test_killed_rank_is_requeued(scene: Scene) -> None:
    scene.begin("ner", 2)
    ranks = scene.job.frozen(scene.run)
    scene.strike()
    send(signal.SIGKILL, [ranks[1]])
    send(signal.SIGCONT, ranks.values())
    scene.job.wait_for(REQUEUED)
    scene.goes_on("a rank killed", scene.job.last_line(), lost=SAVE_STEPS)


@pytest.mark.parametrize("which", ["first", "last"])
def test_killed_node_is_replaced(which: str, scene: Scene, network: Cluster) -> None:
    """The first one runs the batch script and srun, which the other nodes' Slurm tries to reach."""
    scene.begin("ner", 2)
    scene.job.frozen(scene.run)
    lost = scene.job.nodes()[0 if which == "first" else -1]
    with network.configured(*SOON):
        scene.strike()
        network.kill(lost)
        scene.job.wait_for_restart()
    try:
        row = scene.goes_on(f"the {which} node killed", NO_LAST_LINE, lost=SAVE_STEPS)
        assert lost not in scene.job.nodes()
        assert row.seconds <= SECONDS_OF_NODE_LOSS
    finally:
        network.revive(lost)


def test_killed_node_of_four_is_waited_for(scene: Scene, network: Cluster) -> None:
    """No node is to spare: the job goes on when the lost one is back."""
    scene.begin("ner", 4)
    scene.job.frozen(scene.run)
    lost = scene.job.nodes()[-1]
    with network.configured(*SOON):
        scene.strike()
        network.kill(lost)
        scene.job.wait_for_state("PENDING")
    network.revive(lost)
    scene.goes_on("a node of four killed, back at once", NO_LAST_LINE, lost=SAVE_STEPS)


def test_node_cut_off_is_replaced_and_does_no_harm_when_it_is_back(
    scene: Scene, network: Cluster
) -> None:
    """The first node: its batch script, and rank 0, which owns the run, live on out of reach."""
    scene.begin("causal", 2)
    old = scene.job.frozen(scene.run)
    first = scene.job.nodes()[0]
    with network.configured(*SOON), network.cut_off(first):
        scene.strike()
        send(signal.SIGCONT, old.values())
        wait_until("a step of the second start", lambda: scene.run.starts()[1:] and stepping(scene))
        assert is_alive(old[0]), "rank 0 of the first start is gone: nothing is tested"
    # It is back, while the second start trains.
    row = scene.goes_on("a node cut off", NO_LAST_LINE, lost=SAVE_STEPS)
    assert row.seconds <= SECONDS_OF_NODE_LOSS
    wait_until("the end of the old rank", lambda: not is_alive(old[0]))
    assert scene.run.directory.read()["status"] == "finished"
    assert_same_bits(scene.run, scene.reference)


def stepping(scene: Scene) -> bool:
    """Whether the last start has done a step."""
    try:
        return scene.run.going_again() > 0
    except StopIteration:
        return False


def is_alive(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "Z (zombie)" not in status.read_text()


def test_full_disk_costs_no_step(scene: Scene) -> None:
    """Saves fail while it is full, training goes on, and the next one succeeds."""
    scene.begin("ner", 2, "--hold")
    cluster, out = scene.cluster, scene.run.directory.path
    out.mkdir()
    cluster.on("mount", "-t", "tmpfs", "-o", "size=160m", "small", str(out))
    try:
        inside = cluster.sees(out)
        scene.run.directory = RunDirectory(inside)
        cluster.on("scontrol", "release", scene.job.id)
        ranks = scene.job.frozen(scene.run)
        fill(inside / "ballast", leave=64 << 10)
        send(signal.SIGCONT, ranks.values())
        wait_until("a save that fails", lambda: scene.run.events("save_failed"))
        (inside / "ballast").unlink()
        assert scene.job.wait_for_state("COMPLETED", "FAILED") == "COMPLETED", scene.job.log()
        assert scene.job.last_line() == f"bigft: finished ({out})"
        assert_same_bits(scene.run, scene.reference)
        assert scene.run.starts() == [0]
        assert scene.run.directory.checkpoints()[-1][0] == STEPS
        scene.tell(Row("disk full", scene.what, scene.job.last_line(), 0, 0.0, 0.0))
    finally:
        cluster.on("umount", str(out))


def fill(ballast: Path, leave: int) -> None:
    """Makes the file so large that its file system has `leave` bytes left."""
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            file.truncate(file.tell() - leave)
