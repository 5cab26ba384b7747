"""How jobs are submitted: refused in time, in a chain, as a sweep, and under any name."""

from __future__ import annotations

import re
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from slurm.harness import (
    ENDED,
    SAVE_STEPS,
    STEPS,
    Cluster,
    Job,
    Run,
    assert_same_bits,
    send,
    wait_until,
)
from slurm.scene import Scene

pytestmark = pytest.mark.slurm

NewRun = Callable[..., Run]
Uninterrupted = Callable[[str, int], tuple[Run, Job]]


def wrong_key(run: Run) -> str:
    run.write({**read(run), "optim": {"learnin_rate": 1e-3}})
    return "learnin_rate"


def wrong_tag(run: Run) -> str:
    data = run.place / "wrong.jsonl"
    data.write_text('{"tokens": ["abc"], "ner_tags": ["B-PER", "O"]}\n')
    run.write({**read(run), "data": {"train_file": [str(data)]}})
    return f"{data}:1"


def read(run: Run) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(run.config.read_text())
    return loaded


@pytest.mark.parametrize("spoil", [wrong_key, wrong_tag])
def test_bad_input_is_refused_on_the_batch_host(
    cluster: Cluster, new_run: NewRun, spoil: Callable[[Run], str]
) -> None:
    """Before srun: no node starts anything, and nothing is left behind."""
    run = new_run("ner", 2)
    what = spoil(run)
    job = cluster.submit(run)
    assert job.wait_for_state(*ENDED) == "FAILED"
    assert job.last_line().startswith("bigft: failed because ")
    assert what in job.last_line()
    assert "ready" not in job.log(), "nodes were asked"
    assert not run.directory.path.exists()


def test_chain_continues_where_the_job_before_it_was_cancelled(scene: Scene) -> None:
    scene.prepare("causal", 2)
    answer = scene.cluster.on(
        *(str(scene.cluster.bin / "bigft"), "submit", str(scene.run.config)),
        *("--nodes", "2", "--chain", "3"),
        cwd=scene.run.place,
    )
    numbers = re.findall(r"^job (\d+); its log: bigft-\1\.out$", answer, re.MULTILINE)
    first, second, third = (Job(scene.cluster, number, scene.run.place) for number in numbers)
    scene.job = first
    ranks = first.frozen(scene.run)
    assert [second.state(), third.state()] == ["PENDING", "PENDING"]
    scene.strike()
    scene.cluster.on("scancel", first.id)
    send(signal.SIGCONT, ranks.values())
    assert first.wait_for_state(*ENDED) == "CANCELLED"
    scene.job = second
    scene.goes_on("scancel in a chain", first.last_line())
    assert third.wait_for_state(*ENDED) == "COMPLETED"
    path = scene.run.directory.path
    assert third.last_line() == f"bigft: finished (before this job: {path})"


def test_a_named_checkpoint_is_where_a_run_begins_and_where_it_goes_on_without_one_of_its_own(
    cluster: Cluster, new_run: NewRun, uninterrupted: Uninterrupted
) -> None:
    reference, _ = uninterrupted("causal", 2)
    run, first = new_run("causal", 2), STEPS - 2 * SAVE_STEPS
    config = read(run)
    config["train"]["resume_from_checkpoint"] = f"{reference.directory.path}/checkpoint-{first}"
    run.write(config)
    job = cluster.submit(run)
    ranks = job.frozen(run)
    assert first < run.step() < first + SAVE_STEPS
    send(signal.SIGKILL, ranks.values())
    job.wait_for("bigft: stopped and requeued")
    assert job.wait_for_state(*ENDED) == "COMPLETED", job.log()
    assert run.starts() == [first, first]
    assert run.weights() == reference.weights()
    later = cluster.submit(run)  # as the next one of a chain
    assert later.wait_for_state(*ENDED) == "COMPLETED", later.log()
    assert later.last_line() == f"bigft: finished (before this job: {run.directory.path})"


def test_a_directory_that_a_job_holds_is_refused_to_another(
    cluster: Cluster, new_run: NewRun
) -> None:
    """Rank 0 refuses; the exit code that the job script gets is of the rank that waits for it."""
    run = new_run("ner", 1)
    config = read(run)
    config["train"] |= {"max_steps": 1_000_000, "per_device_train_batch_size": 1}
    run.write(config)

    def submitted_to(node: str) -> Job:
        options = ["--nodes=1", "--ntasks-per-node=2", f"--nodelist={node}"]
        return cluster.sbatch(options, [str(run.config)], run.place)

    first = submitted_to("n1")
    wait_until("the first steps", lambda: run.step() > 0)
    second = submitted_to("n2")
    assert second.wait_for_state(*ENDED) == "FAILED"
    assert "train.output_dir: " in second.last_line()
    assert f" on n1 (Slurm job {first.id}, restart 0), which is running" in second.last_line()
    assert first.state() == "RUNNING"
    cluster.on("scancel", first.id)
    first.wait_for_state(*ENDED)


def test_array_is_a_sweep(cluster: Cluster, new_run: NewRun) -> None:
    """Each task has its own seed and directory, by %a in the arguments."""
    run = new_run("ner", 1)
    overrides = ["train.seed=%a", "train.output_dir=out-%a", "train.max_steps=12"]
    options = ["--array=1-2", "--output=sweep-%a.out"]
    job = cluster.sbatch(options, [str(run.config), *overrides], run.place)
    runs = []
    for number in (1, 2):
        task = Job(cluster, f"{job.id}_{number}", run.place)
        assert task.wait_for_state(*ENDED) == "COMPLETED"
        log = (run.place / f"sweep-{number}.out").read_text()
        assert log.splitlines()[-1] == f"bigft: finished (out-{number})"
        runs.append(Run(run.place, 1, f"out-{number}"))
    assert [*runs[0].losses()] == [*range(1, 13)]
    assert runs[0].losses() != runs[1].losses()


def test_names_with_spaces_and_quotes_are_names(
    cluster: Cluster, new_run: NewRun, uninterrupted: Uninterrupted, tmp_path: Path
) -> None:
    """One node, two ranks; the bits are those of two nodes."""
    reference, _ = uninterrupted("ner", 2)
    hostile = """it's a "run" $(touch canary) `touch canary` ;touch canary; *"""
    place = new_run("ner", 2).place.rename(tmp_path / hostile)
    config = (place / "config.yaml").rename(place / f"{hostile}.yaml")
    run = Run(place, 2, f"out {hostile}")
    options = ["--ntasks-per-node=2", "--output=job-%j.out", f"--job-name={hostile}"]
    override = f"train.output_dir={run.directory.path.name}"
    job = cluster.sbatch(options, [config.name, override], place)
    assert job.wait_for_state(*ENDED) == "COMPLETED", job.log()
    shown = job.last_line().removeprefix("bigft: finished (").removesuffix(")")
    assert shlex.split(shown) == [run.directory.path.name]
    assert_same_bits(run, reference)
    assert len(run.losses()) == STEPS
    assert not [*tmp_path.rglob("canary")]
