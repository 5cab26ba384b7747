"""What two ranks leave under ZeRO-2 and ZeRO-3 is what plain transformers and peft answer with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from distributed.ranks import run_ranks
from distributed.scenarios import train
from peft import PeftModel
from training.language_models import logits, plain, write_run

from bigft.config import resolved_yaml
from bigft.config.sections import RunConfig
from bigft.runtime.run_directory import RunDirectory
from bigft.training.merge import export_merged

pytestmark = pytest.mark.distributed

INVALID = {"do_sample": False, "temperature": 0.6}
CASES = [
    (architecture, method, stage)
    for architecture, method in (("llama", "lora"), ("t5", "lora"), ("mixtral", "full"))
    for stage in (2, 3)
]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str, int], Path]:
    """The directory of each case's finished run, in `out`, beside its `base`."""
    found, configs = {}, []
    for case in CASES:
        architecture, method, stage = case
        place = found[case] = tmp_path_factory.mktemp("-".join(map(str, case)))
        config: dict[str, Any] = json.loads(write_run(place, architecture).read_text())
        generation = place / "base" / "generation_config.json"
        generation.write_text(json.dumps(json.loads(generation.read_text()) | INVALID))
        config |= {
            "adapt": {"method": method},
            "parallel": {"zero_stage": stage},
            "optim": {"learning_rate": 0.05},
            "train": {"output_dir": str(place / "out"), "max_steps": 2, "save_strategy": "no",
                      "eval_strategy": "no", "per_device_train_batch_size": 1},
        }  # fmt: skip
        configs.append(config)
    run_ranks(train, 2, configs, timeout=600)
    for config in configs:
        directory = RunDirectory(config["train"]["output_dir"])
        directory.claim(resume=False)
        directory.write_config(resolved_yaml(RunConfig.model_validate(config)))
        directory.update(status="finished", exit_code=0)
        directory.release()
    return found


@pytest.mark.parametrize("case", CASES, ids=str)
def test_others_load_what_was_trained(
    case: tuple[str, str, int], places: dict[tuple[str, str, int], Path]
) -> None:
    (architecture, method, _), place = case, places[case]
    base = logits(plain(place / "base", architecture), architecture)
    if method == "full":
        left = logits(plain(place / "out" / "model", architecture), architecture)
        written = place / "out" / "model"
    else:
        shell = PeftModel.from_pretrained(plain(place / "base", architecture),
                                          place / "out" / "model")  # fmt: skip
        left = logits(shell, architecture)
        written = place / "merged"
        result = export_merged(RunDirectory(place / "out"), written)
        assert result.difference["loss"] == pytest.approx(0, abs=1e-4)
        merged = logits(plain(written, architecture), architecture)
        assert float((merged - left).abs().max() / left.abs().max()) < 1e-5
    assert not torch.allclose(left, base, rtol=1e-3)
    for directory in (place / "out" / "model", written):
        generation = json.loads((directory / "generation_config.json").read_text())
        assert "temperature" not in generation
        assert generation["eos_token_id"] is not None


def test_zero_3_leaves_what_zero_2_does(places: dict[tuple[str, str, int], Path]) -> None:
    for architecture, method, _ in CASES[::2]:
        answers = []
        for stage in (2, 3):
            place = places[architecture, method, stage]
            model: Any = plain(place / ("base" if method == "lora" else "out/model"), architecture)
            if method == "lora":
                model = PeftModel.from_pretrained(model, place / "out" / "model")
            answers.append(logits(model, architecture))
        assert torch.allclose(*answers, rtol=1e-3, atol=1e-4), architecture
