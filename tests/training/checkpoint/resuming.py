"""Runs that save a checkpoint and go on from it, without an engine."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from training.checkpoint.small import SmallEngine, SmallWorld

from bigft.config.errors import BadInput
from bigft.config.load import load_config
from bigft.data.fingerprint import VERSION
from bigft.runtime.run_directory import RunDirectory
from bigft.training.checkpoint import (
    CheckpointStore,
    TrainerState,
    checkpoint_to_resume,
    resume_fingerprint,
)

RESUME = "train.resume_from_checkpoint="
PACKED = ["data.packing=true", "data.max_seq_length=64"]
ARITHMETIC = {"threads": "1", "processor": "a CPU, AVX512"}


def run_of(*overrides: str, data: str = "f") -> Any:
    base = ["task=causal-lm", "model.model_name_or_path=model", "data.train_file=t"]
    words = [*base, "train.output_dir=run", *overrides]
    return SimpleNamespace(
        config=load_config(None, words).config, data_fingerprint=VERSION + data, splits={}
    )


def fingerprint_of(run: Any, world_size: int = 1, **arithmetic: str) -> dict[str, Any]:
    return resume_fingerprint(run, world_size, ARITHMETIC | arithmetic)


def saved(run: Any, *steps: int, world_size: int = 1) -> RunDirectory:
    directory = RunDirectory("run")
    directory.path.mkdir(exist_ok=True)
    fingerprint = fingerprint_of(run, world_size)
    store = CheckpointStore(directory, SmallWorld(), None, fingerprint, False)
    for step in steps:
        assert store.save(SmallEngine(), TrainerState(step=step)).path
    return directory


def refusal(run: Any, directory: RunDirectory, world_size: int = 1) -> list[str]:
    with pytest.raises(BadInput) as refused:
        checkpoint_to_resume(run, directory, world_size)
    return [str(problem) for problem in refused.value.problems]
