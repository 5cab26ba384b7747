"""A run that goes on keeps what its checkpoint depends on, and says which key was changed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bigft.config.errors import BadInput
from bigft.config.load import load_config
from bigft.runtime.run_directory import RunDirectory
from bigft.training.build import global_batch
from bigft.training.checkpoint import TrainerState
from bigft.training.fit import checkpoint_to_resume, what_stays

BASE = ["task=causal-lm", "model.model_name_or_path=m", "data.train_file=t", "train.output_dir=o"]


def run_of(*overrides: str) -> Any:
    config = load_config(None, [*BASE, *overrides]).config
    return SimpleNamespace(config=config, data_fingerprint="f")


def resumed(tmp_path: Path, before: list[str], after: list[str]) -> Path | None:
    run, place = run_of(*before), tmp_path / "checkpoint-3"
    place.mkdir()
    state = TrainerState(
        step=3,
        global_batch=global_batch(run.config, 1),
        data_fingerprint="f",
        kept=what_stays(run.config),
    )
    (place / "trainer.json").write_text(json.dumps(asdict(state)))
    wanted = f"train.resume_from_checkpoint={place}"
    return checkpoint_to_resume(run_of(*after, wanted), RunDirectory(str(tmp_path)), 1)


@pytest.mark.parametrize(
    ("before", "after", "key"),
    [
        (["adapt={method: lora, lora_alpha: 8}"], ["adapt={method: lora, lora_alpha: 64}"],
         "adapt"),
        (["adapt={method: lora}"], ["adapt={method: qlora}"], "adapt"),
        (["optim.optim=adamw_torch"], ["optim.optim=lion_8bit"], "optim.optim"),
        ([], ["optim.layerwise_lr_decay=0.9"], "optim.layerwise_lr_decay"),
        (["parallel.zero_stage=3"], ["parallel.zero_stage=0"], "parallel.zero_stage"),
        ([], ["train.bf16=true"], "train.bf16"),
        (["adapt={method: head}"], ["adapt={method: head}", "model.config_overrides={a: 1}"],
         "model.config_overrides"),
    ],
)  # fmt: skip
def test_a_changed_key_is_refused_by_name(
    tmp_path: Path, before: list[str], after: list[str], key: str
) -> None:
    with pytest.raises(BadInput, match=f"keep {key} of the run that continues"):
        resumed(tmp_path, before, after)


def test_rates_and_lengths_may_change(tmp_path: Path) -> None:
    after = ["optim.learning_rate=1e-3", "train.num_train_epochs=9", "optim.weight_decay=0.1"]
    assert resumed(tmp_path, [], after) == tmp_path / "checkpoint-3"
