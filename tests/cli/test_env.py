"""`bigft env`: complete, and silent about secrets."""

from __future__ import annotations

import argparse
import json
import os
from importlib.metadata import version

import pytest

import bigft
from bigft.cli import env

CANARY = "canary-4711"


def show(*arguments: str) -> None:
    parser = argparse.ArgumentParser()
    env.add_arguments(parser)
    assert env.run(parser.parse_args(arguments)) == 0


def test_it_tells_versions_machine_and_extensions(capsys: pytest.CaptureFixture[str]) -> None:
    show("--json")
    facts = json.loads(capsys.readouterr().out)
    assert facts["packages"]["bigft"] == bigft.__version__
    assert facts["packages"]["torch"] == version("torch")
    assert facts["system"]["cores_usable"] == len(os.sched_getaffinity(0))
    assert facts["system"]["memory"].endswith(" kB")
    assert facts["accelerators"]
    assert facts["imports"] == {"models of transformers": "ok"}
    assert facts["extensions"].keys() == {"bigft._host"}


def test_the_text_has_one_line_per_fact(capsys: pytest.CaptureFixture[str]) -> None:
    show()
    text = capsys.readouterr().out
    assert f"\n  torch         {version('torch')}\n" in text


@pytest.mark.parametrize(
    "name",
    [
        "HF_TOKEN",
        "HUGGING_FACE_HUB_TOKEN",
        "WANDB_API_KEY",
        "HF_TOKEN_OF_BOB",
        "SLURM_JWT",
        "BIGFT_PASSWORD",
        "CUDA_SECRET_X",
    ],
)
def test_of_a_secret_only_that_it_is_set_is_told(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, CANARY)
    show()
    show("--json")
    text = capsys.readouterr().out
    assert CANARY not in text
    assert f'"{name}": "set"' in text


def test_a_password_in_an_address_is_masked() -> None:
    address = f"https://user:{CANARY}@host/path"
    assert env.environment({"WANDB_BASE_URL": address}) == {
        "WANDB_BASE_URL": "https://***@host/path"
    }


def test_variables_that_change_a_run_are_told_and_others_are_not() -> None:
    environ = {
        "RANK": "1",
        "RANKS_OF_SOMETHING": "1",
        "NCCL_DEBUG": "INFO",
        "TOKENIZERS_PARALLELISM": "false",
        "MALLOC_TOP_PAD_": "1",
        "GLOO_SOCKET_IFNAME": "eth0",
        "LOCAL_RANK": "0",
        "HOME": "/home/bob",
        "AWS_REGION": "x",
    }
    told = env.environment(environ)
    assert told == {
        name: value
        for name, value in sorted(environ.items())
        if name not in ("RANKS_OF_SOMETHING", "HOME", "AWS_REGION")
    }


def test_a_missing_package_and_a_missing_extension_are_said_to_be_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(env, "PACKAGES", ("no-such-package",))
    monkeypatch.setattr(env, "EXTENSIONS", ("bigft._none",))
    facts = env.collect({})
    assert facts["packages"]["no-such-package"] == "not installed"
    assert facts["extensions"]["bigft._none"].startswith("not available (No module named")
