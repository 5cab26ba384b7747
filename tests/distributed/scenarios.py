"""What ranks do in tests: whole runs through the product's own path, from a config to `model/`."""

from __future__ import annotations

from datetime import date
from typing import Any

import torch
from tiny import tiny_model

from bigft.config.deepspeed import deepspeed_config
from bigft.config.sections import RunConfig
from bigft.models.heads.lm import attach_lm_head
from bigft.runtime.events import EventStream
from bigft.runtime.process_group import World
from bigft.runtime.run_directory import RunDirectory
from bigft.runtime.signals import StopRequest
from bigft.tasks.protocol import Loss
from bigft.training import step as step_module
from bigft.training.checkpoint import checkpoint_to_resume
from bigft.training.engine import build_engine
from bigft.training.fit import fit
from bigft.training.inputs import Known, prepare
from bigft.training.optimizers import OPTIMIZERS, parameter_groups


def train(
    world: World,
    configs: list[dict[str, Any]],
    stop_at: int | None = None,
    clock: date | None = None,
) -> list[Any]:
    """Runs each config; per config (log events, results of all_results.json or None).

    stop_at: the step after which the first rank is asked to stop, as by a signal.
    clock: the day that a chat template takes for today.
    """
    return [
        _train_one(world, RunConfig.model_validate(config), stop_at, clock) for config in configs
    ]


def train_apart(world: World, configs: list[dict[str, Any]]) -> list[Any]:
    """Each rank runs the config of its number."""
    return train(world, configs[world.rank : world.rank + 1])


def train_averaging_per_micro_batch(world: World, configs: list[dict[str, Any]]) -> list[Any]:
    """The mistake that bigft exists to avoid: each micro-batch's loss is a mean of its own."""

    class Averaging:
        def __init__(self, task: Any, num_micro_steps: int) -> None:
            self.task, self.num_micro_steps = task, num_micro_steps

        def loss(self, engine: Any, batch: Any, scale: float) -> Loss:
            loss = self.task.loss(engine, batch, scale)
            return Loss(*(part / max(batch.num_targets, 1) for part in loss))

    exact = step_module.train_step

    def averaging(engine: Any, task: Any, batches: Any, targets: int, world: World, *where: int):
        wrong = Averaging(task, len(batches))
        done = exact(engine, wrong, batches, world.size * len(batches), world, *where)
        mean = done.loss_sum / (world.size * len(batches))
        return done._replace(loss_sum=mean * targets)

    from bigft.training import loop

    loop.train_step = averaging
    try:
        return train(world, configs)
    finally:
        loop.train_step = exact


def _train_one(
    world: World, config: RunConfig, stop_at: int | None, clock: date | None = None
) -> Any:
    run = prepare(config, Known(clock=clock))
    directory = RunDirectory(config.train.output_dir)
    if world.is_first:
        directory.create()
    world.barrier()
    events, stop, log = EventStream(), StopRequest(), []

    def watch(event: dict[str, Any]) -> None:
        log.append(event)
        if event["event"] == "log" and event["step"] == stop_at:
            stop.request("SIGTERM")

    if world.is_first:
        events.attach(watch)
    checkpoint = checkpoint_to_resume(run, directory, world.size)
    model = run.build_model(shard_by=run.shard_by(world.size))
    results = fit(run, model, world, events, directory, stop, checkpoint)
    return [event for event in log if event["event"] != "report"], results


def train_language_model(world: World, stages: list[int], fused: bool) -> list[Any]:
    """Per ZeRO stage: the losses of four steps of a tied causal LM, then an evaluation's losses and
    predictions. A step is four samples, each a micro-batch of some rank; the last has no target."""
    return [_train_language_model(world, stage, fused) for stage in stages]


def _train_language_model(world: World, stage: int, fused: bool) -> Any:
    config = RunConfig.model_validate(
        {
            "task": {"name": "token-classification"},
            "model": {"model_name_or_path": "unused"},
            "parallel": {"zero_stage": stage},
            "optim": {"learning_rate": 0.01},
            "train": {"output_dir": "unused"},
        }
    )
    model = tiny_model("qwen2", "AutoModelForCausalLM")
    attach_lm_head(model, fused=fused)
    optimizer = OPTIMIZERS["adamw_torch"](
        parameter_groups(model, config.optim, set()), config.optim
    )
    engine = build_engine(model, optimizer, deepspeed_config(config, world.size))
    losses = []
    for step in range(4):
        random = torch.Generator().manual_seed(step)
        ids_BT = torch.randint(4, 200, (4, 9), generator=random)
        labels_BT = ids_BT.roll(-1, 1)
        labels_BT[:, -1], labels_BT[:2, :4], labels_BT[3] = -100, -100, -100
        scale = world.size / int((labels_BT != -100).sum())
        loss_sum = 0.0
        for row in range(world.rank, 4, world.size):
            part = slice(row, row + 1)
            output = engine(labels_BT=labels_BT[part], scale=scale, input_ids=ids_BT[part])
            engine.backward(output.loss, scale_wrt_gas=False)
            loss_sum += output.loss_sum.item()
        engine.step()
        losses.append(world.sum([loss_sum])[0])
    engine.eval()
    with torch.no_grad():
        output = engine(labels_BT=labels_BT, input_ids=ids_BT)
    return losses, output.loss_BT.tolist(), output.predictions_BT.tolist()


def losses(answer: Any) -> dict[int, float]:
    """The loss of every log line by its step, of what `train` answers."""
    events, _ = answer
    return {event["step"]: event["loss"] for event in events if event["event"] == "log"}
