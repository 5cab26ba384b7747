"""One cluster for all tests of this folder, tiny models, and runs that nothing disturbs."""

from __future__ import annotations

import csv
import json
import os
import random
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from slurm.harness import INSTALL, SAVE_STEPS, STEPS, Cluster, Job, Run, missing_programs
from slurm.scene import Row, Scene


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A real Slurm of four nodes; it ends with the session, whatever happens."""
    missing = missing_programs("slurmctld", "slurmd", "sbatch", "munged", "ip")
    if missing:
        pytest.skip(f"no {', '.join(missing)}: {INSTALL}")
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture
def network(cluster: Cluster) -> Cluster:
    """The cluster, if its nodes are hosts of their own."""
    if not cluster.has_network:
        pytest.skip("this machine allows no namespaces: nodes here are no hosts of their own")
    return cluster


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a tiny model and data for each task."""
    from tiny import LABELS, letter_tokenizer, save_tiny

    folder = tmp_path_factory.mktemp("samples")
    save_tiny(folder / "bert")
    speaker = letter_tokenizer(eos_token="[SEP]")
    save_tiny(folder / "llama", "llama", speaker, auto_class="AutoModelForCausalLM")
    source = random.Random(0)

    def sentence() -> list[str]:
        letters = "abcdefghijklmnopqrstuvwxyz"
        return ["".join(source.choices(letters, k=3)) for _ in range(source.randrange(2, 9))]

    with (folder / "ner.jsonl").open("w") as file:
        for _ in range(100):
            words = sentence()
            tags = source.choices([tag for tag in LABELS if tag[0] != "I"], k=len(words))
            print(json.dumps({"tokens": words, "ner_tags": tags}), file=file)
    (folder / "lines.txt").write_text("".join(" ".join(sentence()) + "\n" for _ in range(100)))
    return folder


@pytest.fixture(scope="session")
def new_run(tmp_path_factory: pytest.TempPathFactory, samples: Path) -> Callable[..., Run]:
    """`new_run("ner", nodes=2)`: a run that has not begun, its config written. A step is four
    samples, whatever the number of nodes; dropout is on."""

    def new(task: str, nodes: int) -> Run:
        run = Run(tmp_path_factory.mktemp(f"{task}-{nodes}"), nodes)
        is_ner = task == "ner"
        config: dict[str, Any] = {
            "task": {"name": "token-classification" if is_ner else "causal-lm"},
            "model": {
                "model_name_or_path": str(samples / ("bert" if is_ner else "llama")),
                "dropout": 0.1,
            },
            "data": {"train_file": [str(samples / ("ner.jsonl" if is_ner else "lines.txt"))]},
            "optim": {"learning_rate": 1e-3},
            "parallel": {"zero_stage": 2},
            "train": {
                "output_dir": str(run.directory.path),
                "max_steps": STEPS,
                "global_batch_size": 4,
                "per_device_train_batch_size": 4 // nodes,
                "logging_steps": 1,
                "save_strategy": "steps",
                "save_steps": SAVE_STEPS,
                "save_total_limit": 3,
            },
        }
        run.write(config)
        return run

    return new


@pytest.fixture(scope="session")
def uninterrupted(
    cluster: Cluster, new_run: Callable[..., Run]
) -> Callable[[str, int], tuple[Run, Job]]:
    """`uninterrupted("ner", 2)`: a run that finished in one go, and its job; made once."""

    @cache
    def finished(task: str, nodes: int) -> tuple[Run, Job]:
        run = new_run(task, nodes)
        job = cluster.submit(run)
        assert job.wait_for_state("COMPLETED", "FAILED") == "COMPLETED", job.log()
        return run, job

    return finished


@pytest.fixture(scope="session")
def tell(request: pytest.FixtureRequest) -> Callable[[Row], None]:
    """`tell(row)`: to the terminal, and to the CSV file that BIGFT_SLURM_TABLE names."""
    terminal: Any = request.config.pluginmanager.get_plugin("terminalreporter")

    def told(row: Row) -> None:
        terminal.write_line(f"\n{row}")
        if name := os.environ.get("BIGFT_SLURM_TABLE"):
            with Path(name).open("a", newline="") as file:
                writer = csv.writer(file)
                if file.tell() == 0:
                    writer.writerow(row._fields)
                writer.writerow(row)

    return told


@pytest.fixture
def scene(
    cluster: Cluster,
    new_run: Callable[..., Run],
    uninterrupted: Callable[[str, int], tuple[Run, Job]],
    tell: Callable[[Row], None],
) -> Scene:
    return Scene(cluster, new_run, uninterrupted, tell)
