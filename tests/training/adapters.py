"""A finished run with an adapter, made without training: its trained weights are random."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

from bigft.config import load_config, resolved_yaml
from bigft.config.sections import RunConfig
from bigft.runtime.process_group import World
from bigft.runtime.run_directory import RunDirectory
from bigft.training.export import export_model
from bigft.training.inputs import prepare
from bigft.training.run import Run

ALONE = World(0, 0, 1, torch.device("cpu"), None)


def stirred(model: Any) -> Any:
    """The model with noise on what is trained: a new adapter changes nothing, and a zero is
    easily lost."""
    random = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn(parameter.shape, generator=random))
    return model


def engine(model: Any) -> Any:
    """What an engine without ZeRO-3 is to the export."""
    return SimpleNamespace(module=model, zero_optimization_stage=lambda: 1)


def finished_run(*overrides: str) -> tuple[RunDirectory, Run, Any]:
    """From config.yaml in the current directory: its directory, and the run and model it had."""
    config: RunConfig = load_config("config.yaml", overrides).config
    run = prepare(config)
    model = stirred(run.build_model()).eval()
    directory = RunDirectory(config.train.output_dir)
    directory.claim(resume=False)
    directory.write_config(resolved_yaml(config))
    export_model(engine(model), run.processor, directory, ALONE)
    directory.update(status="finished", exit_code=0)
    return directory, run, model
