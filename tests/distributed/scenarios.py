"""What ranks do in tests: whole runs through the product's own path, from a config to `model/`."""

from __future__ import annotations

import signal
from typing import Any

import torch

from bigft.config.sections import RunConfig
from bigft.runtime.events import EventStream
from bigft.runtime.process_group import World
from bigft.runtime.run_directory import RunDirectory
from bigft.runtime.signals import StopRequest
from bigft.training import step as step_module
from bigft.training.build import prepare
from bigft.training.fit import checkpoint_to_resume, fit


def train(world: World, configs: list[dict[str, Any]], stop_at: int | None = None) -> list[Any]:
    """Runs each config; per config (log events, results of all_results.json or None).

    stop_at: the step after which the first rank is asked to stop, as by a signal.
    """
    return [_train_one(world, RunConfig.model_validate(config), stop_at) for config in configs]


def train_averaging_per_micro_batch(world: World, configs: list[dict[str, Any]]) -> list[Any]:
    """The mistake that bigft exists to avoid: each micro-batch's loss is a mean of its own."""

    class Averaging:
        def __init__(self, task: Any, num_micro_steps: int) -> None:
            self.task, self.num_micro_steps = task, num_micro_steps

        def loss_sum(self, engine: Any, batch: Any) -> torch.Tensor:
            return self.task.loss_sum(engine, batch) / max(batch.num_targets, 1)

    exact = step_module.train_step

    def averaging(engine: Any, task: Any, batches: Any, targets: int, world: World, *where: int):
        wrong = Averaging(task, len(batches))
        mean = exact(engine, wrong, batches, world.size * len(batches), world, *where)
        return mean / (world.size * len(batches)) * targets

    from bigft.training import loop

    loop.train_step = averaging
    try:
        return train(world, configs)
    finally:
        loop.train_step = exact


def _train_one(world: World, config: RunConfig, stop_at: int | None) -> Any:
    run = prepare(config)
    directory = RunDirectory(config.train.output_dir)
    if world.is_first:
        directory.create()
    world.barrier()
    events, stop, log = EventStream(), StopRequest(), []

    def watch(event: dict[str, Any]) -> None:
        log.append(event)
        if event["event"] == "log" and event["step"] == stop_at:
            stop.signal = signal.SIGTERM

    if world.is_first:
        events.attach(watch)
    checkpoint = checkpoint_to_resume(run, directory, world.size)
    results = fit(run, run.build_model(), world, events, directory, stop, checkpoint)
    return [event for event in log if event["event"] != "report"], results
