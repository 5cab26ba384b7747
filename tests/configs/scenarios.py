"""One run of a recipe on its tiny stand-in, as `bigft train` runs it."""

from __future__ import annotations

from collections import Counter
from typing import Any

from bigft.config.deepspeed import deepspeed_config, effective_zero_stage
from bigft.config.sections import RunConfig
from bigft.runtime.events import EventStream
from bigft.runtime.process_group import World
from bigft.runtime.run_directory import RunDirectory
from bigft.runtime.signals import StopRequest
from bigft.training.fit import fit
from bigft.training.inputs import prepare


def train(world: World, config: dict[str, Any]) -> dict[str, Any]:
    """Events, results, and how many layers of which kind the model had."""
    settings = RunConfig.model_validate(config)
    run = prepare(settings)
    directory = RunDirectory(settings.train.output_dir)
    directory.create()
    log: list[dict[str, Any]] = []
    events = EventStream()
    events.attach(log.append)
    shards = effective_zero_stage(settings) == 3
    model = run.build_model(shard_by=deepspeed_config(settings, world.size) if shards else None)
    classes = [type(module) for module in model.modules()]
    kinds = Counter(f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in classes)
    results = fit(run, model, world, events, directory, StopRequest(), None)
    return {"log": log, "results": results, "kinds": dict(kinds)}
