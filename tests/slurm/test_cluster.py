"""The test cluster itself: it is Slurm, it is alone, and it leaves nothing behind."""

from __future__ import annotations

import contextlib
import subprocess
from pathlib import Path

import pytest
from slurm.harness import Cluster, wait_until

pytestmark = pytest.mark.slurm


def test_two_clusters_do_not_see_each_other_and_the_second_leaves_nothing(
    cluster: Cluster, tmp_path: Path
) -> None:
    wait_until("all nodes idle", cluster.is_idle, every=0.2)
    before = seen_on_this_host()
    other = Cluster(tmp_path)
    try:
        other.start()
        names = other.on("srun", "--nodes=4", "sh", "-c", "echo $SLURMD_NODENAME").split()
        assert sorted(names) == ["n1", "n2", "n3", "n4"]
        other.kill("n2")
        assert cluster.is_idle(), "a node of the first cluster is gone"
    finally:
        other.stop()
    assert processes_with(f"{tmp_path}/") == []
    assert seen_on_this_host() == before
    assert cluster.is_idle()


def seen_on_this_host() -> dict[str, str]:
    """What a cluster could leave outside its directory."""
    links = subprocess.run(["ip", "-brief", "link"], capture_output=True, text=True, check=True)
    return {
        "network interfaces": links.stdout,
        "file systems": Path("/proc/self/mountinfo").read_text(),
        "names": Path("/etc/hosts").read_text(),
        "munge": str(sorted(Path("/run").glob("munge*"))),
    }


def processes_with(word: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it ended while it was looked at
            found.append(path.read_bytes().decode())
    return [line for line in found if word in line]
