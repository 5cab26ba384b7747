"""One real `bigft train` on two ranks, watched from outside: with secrets in its environment, no
umask, and names that a shell, a log or an option parser would trip over."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from conftest import TRAIN

from bigft.runtime import launcher

REPOSITORY = Path(__file__).resolve().parents[2]
HOSTILE = "-o $(touch canary) `touch canary`;touch canary;'\"\n\\ %s {0} ☃ &|> canary"
SECRETS = {
    "HF_TOKEN": "hf_s3cr3t-canary-1",
    "WANDB_API_KEY": "s3cr3t-canary-2",
    "AWS_SECRET_ACCESS_KEY": "s3cr3t-canary-3",
    "AWS_SESSION_TOKEN": "s3cr3t-canary-4",
    "GITHUB_TOKEN": "s3cr3t-canary-5",
    "HTTPS_PROXY": "http://someone:s3cr3t-canary-6@proxy.invalid:3128",
    "HF_ENDPOINT": "https://someone:s3cr3t-canary-7@hub.invalid",
    "BIGFT_PASSWORD": "s3cr3t-canary-8",
}
CANARY = b"s3cr3t-canary"


@dataclass
class Watched:
    """A run that has ended, and what was seen of it while it ran."""

    place: Path  # its current directory
    code: int = -1
    output: bytes = b""
    command_lines: set[bytes] = field(default_factory=set)  # of it and all that it started
    listening: set[str] = field(default_factory=set)  # addresses, "127.0.0.1" or "::1"


@pytest.fixture(scope="session")
def hostile_run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """Two steps, a checkpoint of each, an evaluation; every name in it is HOSTILE."""
    place = tmp_path_factory.mktemp("work")
    write_run(place, tiny_model, HOSTILE)
    return watch(place, [f"{HOSTILE}.yaml", "--nproc", "2"], {})


@pytest.fixture(scope="session")
def failed_run(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Watched:
    """A run that dies of an exception in its second step."""
    place = tmp_path_factory.mktemp("work")
    write_run(place, tiny_model, "plain")
    words = ["plain.yaml", "--nproc", "1"]
    return watch(place, words, {"BIGFT_FAILPOINTS": "train.step=raise@2"})


def write_run(place: Path, model: Path, name: str) -> None:
    data = Path(place, f"{name}.jsonl")
    data.write_text("".join(json.dumps(row) + "\n" for row in TRAIN))
    Path(place, name).symlink_to(model)
    config = {
        "task": "token-classification",
        "model": {"model_name_or_path": f"./{name}"},
        "data": {"train_file": data.name, "validation_file": data.name},
        "train": {
            "output_dir": f"runs/{name}",
            "run_name": name,
            "max_steps": 2,
            "global_batch_size": 2,
            "per_device_train_batch_size": 1,
            "save_strategy": "steps",
            "save_steps": 1,
        },
        "report": {"report_to": "tensorboard"},
    }
    Path(place, f"{name}.yaml").write_text(json.dumps(config))  # JSON is YAML


def watch(place: Path, words: list[str], environ: Mapping[str, str]) -> Watched:
    """Runs `bigft train -- words`, whose options come last."""
    names = (*launcher.LAUNCHER_VARIABLES, "SLURM_STEP_ID")
    variables = {name: value for name, value in os.environ.items() if name not in names}
    variables |= {
        "BIGFT_CACHE": str(place / "cache"),
        "DS_ACCELERATOR": "cpu",
        "HF_HUB_OFFLINE": "1",
    }
    variables |= {"PYTHONPATH": str(REPOSITORY), **SECRETS, **environ}
    config, *options = words
    command = [sys.executable, "-m", "bigft", "train", *options, "--", config]
    seen = Watched(place)
    with Path(place, "printed").open("w+b") as printed:
        process = subprocess.Popen(
            command, cwd=place, env=variables, stdout=printed, stderr=printed, umask=0
        )
        try:
            deadline = time.monotonic() + 180
            while process.poll() is None and time.monotonic() < deadline:
                for pid in family(process.pid):
                    look_at(pid, seen)
                time.sleep(0.1)
        finally:
            process.kill()
        printed.seek(0)
        seen.code, seen.output = process.wait(), printed.read()
    return seen


def family(pid: int) -> Iterator[int]:
    """The process and all that descend from it."""
    yield pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return
    for child in children:
        yield from family(int(child))


def look_at(pid: int, seen: Watched) -> None:
    process = Path(f"/proc/{pid}")
    try:
        seen.command_lines.add((process / "cmdline").read_bytes())
        links = [os.readlink(file) for file in (process / "fd").iterdir()]
    except OSError:  # it has just ended, or closed a file
        return
    sockets = {link.removeprefix("socket:[").rstrip("]") for link in links if "socket:" in link}
    for table in ("tcp", "tcp6") if sockets else ():
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            _, local, _, state, *rest = line.split()
            if state == "0A" and rest[5] in sockets:
                seen.listening.add(address(local.partition(":")[0]))


def address(digits: str) -> str:
    """The kernel's hexadecimal words, each with its bytes reversed, as people write them."""
    raw = bytes.fromhex(digits)
    words = [raw[at : at + 4][::-1] for at in range(0, len(raw), 4)]
    return str(ipaddress.ip_address(b"".join(words)))
