"""One run on one rank: from prepared data to trained weights, test scores and `model/`."""

from __future__ import annotations

import gc
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from bigft.config.deepspeed import deepspeed_config, effective_zero_stage
from bigft.config.errors import BadInput, Problem
from bigft.config.sections import RunConfig
from bigft.data.packing import join
from bigft.models.cpu_bf16 import emulates_bf16, multiply_in_fp32
from bigft.models.heads.choose import HeadChoice, choose_head
from bigft.models.layers import frozen_digest, head_names, num_values, trained_table
from bigft.models.packed import check_packing
from bigft.runtime.events import EventStream
from bigft.runtime.launcher import EXIT_HUNG
from bigft.runtime.process_group import World
from bigft.runtime.run_directory import RunDirectory
from bigft.runtime.signals import Stopped, StopRequest
from bigft.runtime.watchdog import Watchdog
from bigft.training.build import Run, compute_dtype, global_batch
from bigft.training.checkpoint import (
    CheckpointStore,
    TrainerState,
    resume_fingerprint,
    resume_notes,
)
from bigft.training.engine import build_engine
from bigft.training.export import export_model
from bigft.training.loop import Loop, Tick
from bigft.training.optimizers import OPTIMIZERS, checkpoint_bytes, parameter_groups

SLOW_DISK = 50e6  # bytes per second


def fit(
    run: Run,
    model: Any,
    world: World,
    events: EventStream,
    directory: RunDirectory,
    stop: StopRequest,
    checkpoint: Path | None = None,
) -> dict[str, Any] | None:
    """Trains, evaluates and exports; the content of all_results.json, or None if told to stop.

    Collective. model: of `Run.build_model`, on the CPU.  checkpoint: to go on from, or, where it is
    damaged, from one before it.
    """

    def hangs(text: str) -> None:
        directory.crashed(text, EXIT_HUNG)

    timeout, log = run.config.parallel.ddp_timeout, directory.log_file(world.rank)
    with Watchdog(world, timeout, log, hangs) as watchdog:
        return _fit(run, model, world, events, directory, stop, checkpoint, watchdog.tick)


def _fit(
    run: Run,
    model: Any,
    world: World,
    events: EventStream,
    directory: RunDirectory,
    stop: StopRequest,
    checkpoint: Path | None,
    tick: Tick,
) -> dict[str, Any] | None:
    config, started = run.config, time.monotonic()
    batch = global_batch(config, world.size)
    order = run.order(batch)
    store = CheckpointStore(
        directory,
        world,
        config.train.save_total_limit,
        resume_fingerprint(run, world.size),
        config.checkpoint.strict,
    )
    state, judged_by = TrainerState(), _judged_by(run)
    resuming: list[str] = []  # what a user should know of it
    if checkpoint is not None:
        tick("verifying checkpoints")
        ours = checkpoint.resolve().parent == directory.path.resolve()
        named = config.train.resume_from_checkpoint is not True
        checkpoint, resuming = store.verified(checkpoint, fall_back=not named)
        resuming += resume_notes(run, directory, checkpoint, world.size)
        state = TrainerState.read(checkpoint)
        if state.judged_by != judged_by:
            resuming.append("the best evaluation is forgotten: other data or another metric judge")
        if not ours or state.judged_by != judged_by:
            # Another run's best checkpoint lies elsewhere and cannot be left behind here.
            state.best_metric = state.best_step = None
            state.evaluations_without_gain = 0
    state.judged_by = judged_by

    ds_config = deepspeed_config(config, world.size)
    trainable = sum(num_values(p) for p in model.parameters() if p.requires_grad)
    what_is_trained = [trained_table(model)] if config.adapt.method != "full" else []
    groups = parameter_groups(model, config.optim, head_names(model))
    tick("preparing the model")
    model.to(world.device)
    frozen = "-".join(world.gather(frozen_digest(model, world.rank)))
    if checkpoint is not None and state.frozen != frozen:
        what = f"its frozen weights are not those that {checkpoint} was trained on"
        mend = "restore the base model that the run began with"
        raise BadInput(Problem("model.model_name_or_path", what, mend))
    state.frozen = frozen
    if config.train.bf16 and emulates_bf16(world.device):
        multiply_in_fp32(model)
    sharded = any(hasattr(parameter, "ds_id") for parameter in model.parameters())
    if not sharded:
        head = _try_out(run, model, world, sharded)
    engine = build_engine(model, OPTIMIZERS[config.optim.optim](groups, config.optim), ds_config)
    if sharded:
        head = _try_out(run, engine.module, world, sharded)
    if checkpoint is not None:
        tick("loading the checkpoint")
        asked = [_options(group) for group in engine.optimizer.param_groups]
        store.load(engine, checkpoint)
        # A checkpoint brings its run's rates, betas and decay along: this run's config counts.
        for group, options in zip(engine.optimizer.param_groups, asked, strict=True):
            group.update(options)
    if not state.save_seconds:
        # Not measured yet: as a busy network disk would take.
        state.save_seconds = checkpoint_bytes(config.optim, trainable) / SLOW_DISK + 1
    loop = Loop(run, engine, order, world, events, store, stop, state, tick)
    events.emit(
        "start",
        total_steps=loop.total_steps,
        num_train_epochs=config.train.num_train_epochs,
        num_samples=len(run.splits["train"]),
        **batch,
        world_size=world.size,
        zero_stage=effective_zero_stage(config),
        trainable_parameters=trainable,
        device=str(world.device),
    )
    for note in (*resuming, *what_is_trained, str(head), *_notes(config, world)):
        events.emit("note", text=note)
    if state.fused_head is not None and state.fused_head != head.fused:
        before = "fused" if state.fused_head else "stock"
        text = f"up to step {state.step} the {before} head trained: rounding differs from here on"
        events.emit("note", text=text)
    state.fused_head = head.fused
    # Also at step 0: what an older run wrote to the same metrics.jsonl is past.
    events.emit("resume", step=state.step, path=checkpoint.name if checkpoint else None)
    if not loop.run():
        return None
    results = {
        "train_loss": state.total_loss / max(state.total_targets, 1),
        "train_runtime": time.monotonic() - started,
        "train_samples": len(run.splits["train"]),
        "step": state.step,
        "train_skipped_steps": state.skipped_steps,
        "train_nonfinite_steps": state.nonfinite_steps,
        "train_tokens_per_second": state.total_tokens / max(state.training_seconds, 1e-9),
        "epoch": loop.epoch(state.step),
    }
    left = state.step  # the step whose weights the run leaves behind
    best = directory.path / f"checkpoint-{state.best_step}"
    if config.train.load_best_model_at_end and world.broadcast(best.is_dir()):
        assert state.best_step is not None
        left = state.best_step
        if left != state.step:
            tick("loading the best checkpoint")
            store.verified(best, fall_back=False)
            store.load(engine, best)
    elif config.train.load_best_model_at_end:
        text = "no best checkpoint of this run is there: model/ holds the last weights"
        events.emit("note", text=text)
    try:
        for split, prefix in (("validation", "eval"), ("test", "test")):
            if split in run.splits:
                seen = loop.evaluations.get((split, left)) or loop.evaluate(split, prefix, left)
                results |= {f"{prefix}_{name}": value for name, value in seen.scores.items()}
                events.emit("report", split=split, step=left, text=seen.report)
    except Stopped as stopped:
        loop.save_and_stop(stopped)
        return None
    tick("exporting")
    export_model(engine, run.tokenizer, directory.model, world)
    engine.destroy()
    gc.collect()
    if world.device.type == "cuda":
        torch.cuda.empty_cache()
    return results


def _try_out(run: Run, model: Any, world: World, sharded: bool) -> HeadChoice:
    """Chooses the head, and sees that packed samples stay apart. Collective.

    sharded: the model is an engine's; otherwise it comes before ZeRO shards the weights.
    Raises BadInput where the model does not do what the config asks for.
    """
    features, collate, device = run.probe_features(4), run.task.collate, world.device
    dtype = getattr(torch, compute_dtype(run.config.train))
    requested = run.config.model.fused_head
    batch = collate(features).to(device)
    choice = choose_head(model, batch.inputs, batch.labels_BT, requested, world, dtype, sharded)
    if run.config.data.packing:
        packed = collate([join(features[:3])]).to(device)
        alone = [collate([feature]).to(device) for feature in features[:3]]
        finest = dtype if run.config.model.is_flash else torch.float32
        check_packing(model, packed, alone, world, finest)
    return choice


def _judged_by(run: Run) -> str:
    """What tells the best checkpoint: metric, direction, and the validation set's content."""
    train, validation = run.config.train, run.splits.get("validation")
    content = b"" if validation is None else validation.content_of_record.tobytes()
    metric = (train.metric_for_best_model or "loss").removeprefix("eval_")
    digest = hashlib.sha256(content).hexdigest()
    return f"{metric}, greater is better: {train.greater_is_better}, data {digest[:16]}"


def _options(group: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key != "params"}


def _notes(config: RunConfig, world: World) -> Iterator[str]:
    if effective_zero_stage(config) != config.parallel.zero_stage:
        yield "half precision needs fp32 master weights: parallel.zero_stage 0 runs as stage 1"
    if config.train.bf16 and emulates_bf16(world.device):
        yield "this CPU has no bf16 instructions: train.bf16 saves memory here, fp32 is faster"
    if "8bit" in config.optim.optim and world.device.type == "cpu":
        yield f"optim.optim {config.optim.optim} saves memory on GPUs; on CPUs it is slow"
