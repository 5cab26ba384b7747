"""`deepspeed --hostfile` over ssh on two hosts: nodes of the test cluster, without its Slurm."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from slurm.harness import (
    REPOSITORY,
    SAVE_STEPS,
    Cluster,
    Job,
    Run,
    assert_same_bits,
    ranks_of,
    send,
    wait_until,
)
from slurm.scene import Row
from waiting import PATIENCE

pytestmark = pytest.mark.slurm

HOSTS = ("n1", "n2")
DAEMON = """\
HostKey {place}/host
AuthorizedKeysFile {place}/user.pub
PasswordAuthentication no
# These files lie below a directory that is not the user's home.
StrictModes no
UsePAM no
"""
CLIENT = """\
Host *
  IdentityFile {place}/user
  IdentitiesOnly yes
  UserKnownHostsFile {place}/known
  GlobalKnownHostsFile none
  LogLevel ERROR
"""
ENVIRONMENT = """\
DS_ACCELERATOR=cpu
HF_HUB_OFFLINE=1
OMP_NUM_THREADS=1
BIGFT_CACHE={cache}
PYTHONPATH={repository}
"""


@pytest.fixture
def launched(network: Cluster, tmp_path: Path) -> Iterator[Callable[..., str]]:
    """`launched(config, override, ...)` trains on both hosts and returns what the launcher says.
    Keys, known hosts and both ends' configuration are files of this test alone."""
    missing = [
        name for name in ("sshd", "pdsh") if not shutil.which(name, path="/usr/bin:/usr/sbin")
    ]
    if missing:
        pytest.skip(f"no {', '.join(missing)}: run `tests/slurm/cluster.sh install` as root")
    place = tmp_path / "ssh"
    place.mkdir()
    for key in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / key], check=True
        )
    public = (place / "host.pub").read_text()
    (place / "known").write_text("".join(f"{host} {public}" for host in HOSTS))
    (place / "daemon").write_text(DAEMON.format(place=place))
    (place / "client").write_text(CLIENT.format(place=place))
    ssh = place / "bin" / "ssh"  # found first, by DeepSpeed and by pdsh
    ssh.parent.mkdir()
    ssh.write_text(f'#!/bin/sh\nexec {shutil.which("ssh")} -F {place}/client "$@"\n')
    ssh.chmod(0o755)
    for host in HOSTS:
        network.at(host, "mkdir", "-p", "/run/sshd")
        options = ["-f", str(place / "daemon"), "-o", f"PidFile={place}/{host}.pid"]
        network.at(host, "/usr/sbin/sshd", *options)
    hostfile = tmp_path / "hosts"
    hostfile.write_text("".join(f"{host} slots=1\n" for host in HOSTS))
    cache = tmp_path / "cache"
    (tmp_path / ".deepspeed_env").write_text(ENVIRONMENT.format(cache=cache, repository=REPOSITORY))
    deepspeed = Path(sys.executable).with_name("deepspeed")

    def launch(*arguments: str) -> str:
        return network.at(
            *(HOSTS[0], "env", "DS_ACCELERATOR=cpu", f"PATH={ssh.parent}:/usr/sbin:/usr/bin:/bin"),
            *(str(deepspeed), f"--hostfile={hostfile}", "--master_addr=n1", "--master_port=29500"),
            *(str(REPOSITORY / "launch" / "train.py"), *arguments),
            cwd=tmp_path,
        )

    yield launch
    for host in HOSTS:
        network.at(host, "kill", (place / f"{host}.pid").read_text().strip())


def test_a_run_over_ssh_survives_a_killed_rank_and_ends_with_the_bits_of_one_host(
    launched: Callable[..., str],
    network: Cluster,
    new_run: Callable[..., Run],
    uninterrupted: Callable[[str, int], tuple[Run, Job]],
    tell: Callable[[Row], None],
) -> None:
    run, failures = new_run("ner", 2), []
    command = threading.Thread(target=lambda: failures.append(fails(launched, run)))
    command.start()
    wait_until("the first steps", lambda: run.step() > SAVE_STEPS + 2)
    ranks = ranks_of(run, "RANK")
    assert [*ranks] == [0, 1]
    struck = time.time()
    send(signal.SIGKILL, [ranks[1]])
    command.join(PATIENCE)
    assert failures == [True], "the launcher does not say that a rank died"
    assert not ranks_of(run, "RANK"), "a rank is left"

    again = time.time()
    launched(str(run.config), "train.resume_from_checkpoint=true")
    assert run.starts()[-1] >= SAVE_STEPS
    assert run.steps_lost() <= SAVE_STEPS
    waited = [round(moment - struck, 1) for moment in (again, run.going_again())]
    what = ("a rank killed, deepspeed over ssh", "ner, 2 hosts", "(no job: the command fails)")
    one_host = new_run("ner", 2)
    network.on(str(network.bin / "bigft"), "train", str(one_host.config), "--nproc", "2")
    assert_same_bits(run, one_host)
    assert_same_bits(run, uninterrupted("ner", 2)[0])
    tell(Row(*what, run.steps_lost(), *waited))


def fails(launched: Callable[..., str], run: Run) -> bool:
    try:
        launched(str(run.config))
    except AssertionError:
        return True
    return False
