"""`bigft submit`: what is checked, what sbatch gets, and what is said when it refuses."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import Any

import pytest

from bigft.cli import check, main
from bigft.cli.submit import clean
from bigft.config.load import load_config, resolved_yaml
from bigft.runtime.run_directory import RunDirectory

# Notes its words and environment as JSON lines, and answers as Slurm does.
SBATCH = """\
#!/usr/bin/env python3
import json, os, sys
with open(os.environ["CALLS"], "a") as file:
    print(json.dumps([sys.argv[1:], dict(os.environ)]), file=file)
print(f"{100 + sum(1 for _ in open(os.environ['CALLS']))};cluster")
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a config and a job script; no model is loaded when it is checked."""
    monkeypatch.chdir(tmp_path)
    Path("config.yaml").write_text(
        "task: token-classification\nmodel: {model_name_or_path: model}\n"
        "data: {train_file: train.conll}\ntrain: {output_dir: out}\n"
    )
    Path("slurm").mkdir()
    Path("slurm/finetune.sh").touch()
    Path("bin").mkdir()
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    return tmp_path


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str | None, list[str], int]]:
    """Config, overrides and ranks of every check for other machines that was asked for."""
    asked: list[tuple[str | None, list[str], int]] = []

    def show(args: Any, elsewhere: bool) -> None:
        assert elsewhere
        asked.append((args.config, args.overrides, args.nproc))

    monkeypatch.setattr(check, "show", show)
    return asked


def answer(text: str) -> None:
    program = Path("bin/sbatch")
    program.write_text(text)
    program.chmod(0o755)


def calls() -> list[tuple[list[str], dict[str, str]]]:
    return [tuple(json.loads(line)) for line in Path("calls").read_text().splitlines()]


def dry(capsys: pytest.CaptureFixture[str], *words: str) -> list[list[str]]:
    """The words of every line that a dry run prints."""
    assert main(["submit", *words, "--dry-run"]) == 0
    return [shlex.split(line) for line in capsys.readouterr().out.splitlines()]


def test_the_line_that_is_shown_is_what_sbatch_gets(
    place: Path, checked: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    answer(SBATCH)
    words = ["config.yaml", "train.seed=1", "--nodes", "2", "--time", "02:00:00", "--exclusive"]
    (shown,) = dry(capsys, *words)
    assert not Path("calls").exists()
    assert main(["submit", *words]) == 0
    ((got, _),) = calls()
    script = str(place / "slurm/finetune.sh")
    expected = ["--nodes=2", "--ntasks-per-node=1", "--time=02:00:00", "--exclusive"]
    assert got == ["--parsable", *expected, script, "config.yaml", "train.seed=1"]
    assert shown == ["sbatch", *got]


def test_hostile_words_reach_sbatch_as_they_are(
    place: Path, checked: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    answer(SBATCH)
    name = "con 'fig\" $(touch canary);.yaml"
    Path("config.yaml").rename(name)
    words = [name, "train.run_name=two\nlines `touch canary`", "--comment=a 'b' $(touch canary)"]
    assert main(["submit", *words]) == 0
    ((got, _),) = calls()
    assert got[-2:] == words[:2]
    assert words[2] in got
    assert not Path("canary").exists()


def test_the_check_is_for_all_ranks_and_goes_on_as_the_job_does(
    place: Path,
    checked: list[tuple[str | None, list[str], int]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    dry(capsys, "config.yaml", "train.seed=1", "--nodes=3", "--ntasks-per-node=4")
    resumes = "train.resume_from_checkpoint=true"
    assert checked == [("config.yaml", ["train.seed=1", resumes], 12)]


def test_without_a_number_of_tasks_there_is_one_per_gpu(
    place: Path,
    checked: list[tuple[str | None, list[str], int]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    for gpus in ("--gpus-per-node=a100:4", "--gpus-per-node=4", "--gres=shard:2,gpu:a100:4"):
        (shown,) = dry(capsys, "config.yaml", "-N", "2", gpus)
        assert "--ntasks-per-node=4" in shown
    assert [ranks for *_, ranks in checked] == [8] * 3


def test_a_config_that_is_refused_is_not_submitted(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    answer(SBATCH)
    assert main(["submit", "config.yaml", "optim.lerning_rate=1"]) == 2
    assert "did you mean optim.learning_rate?" in capsys.readouterr().err
    assert not Path("calls").exists()


def test_a_chain_waits_for_the_job_before_however_it_ends(
    place: Path, checked: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    answer(SBATCH)
    assert main(["submit", "config.yaml", "--chain", "3", "--dependency=afterok:9"]) == 0
    dependencies = [
        [word for word in words if word.startswith("--dependency")] for words, _ in calls()
    ]
    assert dependencies == [
        ["--dependency=afterok:9"],
        ["--dependency=afterany:101"],
        ["--dependency=afterany:102"],
    ]
    told = capsys.readouterr().out
    assert "job 103; its log: bigft-103.out" in told
    assert "bigft status out" in told


def test_a_check_of_an_array_looks_at_its_first_task(
    place: Path,
    checked: list[tuple[str | None, list[str], int]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    (shown,) = dry(capsys, "config.yaml", "train.seed=%a", "--array", "3-5%1")
    assert checked[0][1][0] == "train.seed=3"
    assert shown[-1] == "train.seed=%a"


def test_what_an_outer_job_has_set_is_not_handed_on() -> None:
    kept = {"SLURM_CONF": "/etc/slurm.conf", "SBATCH_PARTITION": "gpu", "HF_HOME": "/x"}
    outer = {"SLURM_JOB_ID": "1", "SLURM_CPUS_PER_TASK": "8", "SRUN_CPUS_PER_TASK": "8"}
    outer |= {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    outer |= {"MASTER_ADDR": "n1", "MASTER_PORT": "1"}
    assert clean({**kept, **outer}) == kept


def test_sbatch_gets_the_cleaned_environment(
    place: Path, checked: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    answer(SBATCH)
    monkeypatch.setenv("SLURM_JOB_ID", "1")
    monkeypatch.setenv("MASTER_ADDR", "n1")
    assert main(["submit", "config.yaml"]) == 0
    ((_, environ),) = calls()
    assert not {"SLURM_JOB_ID", "MASTER_ADDR"} & environ.keys()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--dryrun"], "--dryrun: no option of submit; did you mean --dry-run?"),
        (["--chains=2"], "--chains: no option of submit; did you mean --chain?"),
        (["--ntasks=8"], "--ntasks: is not taken; give --nodes and --ntasks-per-node"),
        (["-n8"], "give --nodes and --ntasks-per-node"),
        (["--gpus=4"], "--gpus: is not taken; give --gpus-per-node"),
        (["--chdir=/tmp"], "--chdir: is not taken; start bigft submit in that directory"),
        (["--time=3"], "--time: 3 is over too soon: a stop is asked for 180 s before the end"),
        (["--time=00:03:00"], "give it longer, or --signal=B:USR1@30"),
        (["-t", "2:59"], "2:59 is over too soon"),
        (["--licenses", "a:1"], "a:1: neither section.key=value nor an option; options of sbatch"),
        (["--script=no.sh"], "--script: no no.sh here; give its path"),
    ],
)
def test_options_that_cannot_work_are_refused_with_what_to_write(
    place: Path,
    checked: list[object],
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    told: str,
) -> None:
    assert main(["submit", "config.yaml", *words, "--dry-run"]) == 2
    assert told in capsys.readouterr().err
    assert checked == []


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "sbatch: error: invalid partition specified: gpuu\nsbatch: error: Batch job submission "
            "failed: Invalid partition name specified",
            "`sinfo -s` lists the partitions",
        ),
        ("sbatch: unrecognized option '--ndoes=2'", "did you mean --nodes?"),
        ("sbatch: error: something new", "sbatch: something new; see `man sbatch`"),
    ],
)
def test_a_refusal_of_sbatch_is_told_with_what_to_do(
    place: Path, checked: list[object], capsys: pytest.CaptureFixture[str], said: str, told: str
) -> None:
    answer(f"#!/bin/sh\ncat >&2 <<'END'\n{said}\nEND\nexit 1\n")
    assert main(["submit", "config.yaml"]) == 2
    assert told in capsys.readouterr().err


def test_without_slurm_it_says_where_to_start_it(
    place: Path,
    checked: list[object],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", str(place / "bin"))
    assert main(["submit", "config.yaml"]) == 2
    assert "sbatch: not on PATH; start it on a login node" in capsys.readouterr().err
    assert checked == []


def test_a_finished_run_is_not_submitted_again(
    place: Path, checked: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    directory = RunDirectory("out")
    directory.claim(resume=False)
    directory.update(status="finished")
    assert main(["submit", "config.yaml", "--dry-run"]) == 2
    assert "config.yaml:4: train.output_dir: out holds a finished run" in capsys.readouterr().err
    assert checked == []
    directory.config_file.write_text(resolved_yaml(load_config("config.yaml").config))
    assert main(["submit", "config.yaml", "--dry-run"]) == 2
    assert main(["submit", "config.yaml", "train.num_train_epochs=9", "--dry-run"]) == 0
    assert main(["submit", "config.yaml", "--array=1-2", "--dry-run"]) == 0
    assert len(checked) == 2


@pytest.mark.parametrize(
    "limit", ["4", "3:01", "0:03:01", "0-1", "0-0:4", "1-0:0:0", "0", "UNLIMITED"]
)
def test_time_limits_that_leave_time_are_taken(
    limit: str, place: Path, checked: list[object], capsys: pytest.CaptureFixture[str]
) -> None:
    (shown,) = dry(capsys, "config.yaml", f"--time={limit}")
    assert f"--time={limit}" in shown
    (shown,) = dry(capsys, "config.yaml", "--time=1", "--signal=B:USR1@10")
    assert "--signal=B:USR1@10" in shown
