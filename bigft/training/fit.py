"""One run on one rank: from prepared data to trained weights, test scores and `model/`."""

from __future__ import annotations

import gc
import hashlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from bigft.config.deepspeed import deepspeed_config, effective_zero_stage
from bigft.config.errors import BadInput, Problem
from bigft.config.exit_codes import EXIT_HUNG
from bigft.config.sections import RunConfig
from bigft.data.loader import Collate
from bigft.data.packing import join
from bigft.data.records import Row
from bigft.models.cpu_bf16 import emulates_bf16, multiply_in_fp32
from bigft.models.heads.choose import HeadChoice, choose_head
from bigft.models.heads.swap import base_model
from bigft.models.layers import frozen_digest, head_names, num_values, trained_table
from bigft.models.packed import check_packing
from bigft.runtime.events import EventStream
from bigft.runtime.machine import arithmetic, peak_memory_mib
from bigft.runtime.process_group import World
from bigft.runtime.run_directory import RunDirectory
from bigft.runtime.seeding import address
from bigft.runtime.signals import Stopped, StopRequest
from bigft.runtime.watchdog import Watchdog
from bigft.training.batch import global_batch
from bigft.training.best import Judge
from bigft.training.checkpoint import (
    CheckpointStore,
    TrainerState,
    resume_fingerprint,
    resume_notes,
)
from bigft.training.engine import build_engine
from bigft.training.evaluate import Evaluation
from bigft.training.export import export_model
from bigft.training.loop import Loop, Tick
from bigft.training.optimizers import OPTIMIZERS, checkpoint_bytes, parameter_groups
from bigft.training.run import Run, compute_dtype

SLOW_DISK = 50e6  # bytes per second
MAX_DRAWS = 1000  # until a row that may have a target has one


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
    damaged and was not named, from one before it.
    """

    def hangs(text: str) -> None:
        directory.crashed(text, EXIT_HUNG)

    train, started = run.config.train, time.monotonic()
    log = directory.log_file(world.rank)
    with Watchdog(world, run.config.parallel.ddp_timeout, log, hangs) as watchdog:
        _check_same_data(run, world)
        fingerprint = resume_fingerprint(run, world.size, arithmetic(world))
        limit, strict = train.save_total_limit, run.config.checkpoint.strict
        store = CheckpointStore(directory, world, limit, fingerprint, strict, watchdog.tick)
        rank = _Rank(run, world, events, directory, store, watchdog.tick)
        loop = rank.begin(model, stop, checkpoint)
        try:
            if not loop.run():
                return None
            results = {
                "train_runtime": time.monotonic() - started,
                "train_peak_memory_mib": peak_memory_mib(world),
                **loop.results(),
            }
            return rank.end(loop, results)
        finally:
            if world.size == 1:  # or others might be waited for
                loop.engine.destroy()  # its hooks would keep it for as long as the process lives


@dataclass(frozen=True, slots=True)
class _Rank:
    """One rank's run before its first step and after its last one."""

    run: Run
    world: World
    events: EventStream
    directory: RunDirectory
    store: CheckpointStore
    tick: Tick

    def begin(self, model: Any, stop: StopRequest, checkpoint: Path | None) -> Loop:
        """The loop, ready for its next step. Collective."""
        run, world, config = self.run, self.world, self.run.config
        state = TrainerState()
        notes: list[str] = []
        if checkpoint is not None:
            checkpoint, state, notes = self._resumed(checkpoint)
        state.judged_by = _judged_by(run)
        trainable = sum(num_values(p) for p in model.parameters() if p.requires_grad)
        if config.adapt.method != "full":
            notes.append(trained_table(model))
        engine, head = self._built(model, state)
        if checkpoint is not None:
            self.tick("loading the checkpoint")
            asked = [_options(group) for group in engine.optimizer.param_groups]
            self.store.load(engine, checkpoint)
            # A checkpoint brings its run's rates, betas and decay along: this run's config counts.
            for group, options in zip(engine.optimizer.param_groups, asked, strict=True):
                group.update(options)
        notes += [str(head), *_notes(config, world)]
        if state.fused_head not in (None, head.fused):
            before = "fused" if state.fused_head else "stock"
            what = f"up to step {state.step} the {before} head trained"
            notes.append(f"{what}: rounding differs from here on")
        state.fused_head = head.fused
        # Until it is measured: as a busy network disk would take.
        state.save_seconds = state.save_seconds or (
            checkpoint_bytes(config.optim, trainable) / SLOW_DISK + 1
        )
        batch = global_batch(config, world.size)
        order = run.order(batch)
        loop = Loop(run, engine, order, world, self.events, self.store, stop, state, self.tick)
        self.events.emit(
            "start",
            total_steps=loop.total_steps,
            num_train_epochs=config.train.num_train_epochs,
            num_samples=len(run.splits["train"]),
            **batch,
            world_size=world.size,
            zero_stage=effective_zero_stage(config),
            trainable_parameters=trainable,
            device=str(world.device),
            uniform_loss=run.task.uniform_loss(),
        )
        for note in notes:
            self.events.emit("note", text=note)
        # Also at step 0: what an older run wrote to the same metrics.jsonl is past.
        path = checkpoint.name if checkpoint else None
        self.events.emit("resume", step=state.step, path=path)
        return loop

    def _resumed(self, checkpoint: Path) -> tuple[Path, TrainerState, list[str]]:
        """The checkpoint to go on from, its state, and what a user should know of it."""
        self.tick("verifying checkpoints")
        branches = not self.directory.holds(checkpoint)
        named = self.run.config.train.resume_from_checkpoint is not True
        checkpoint, notes = self.store.verified(checkpoint, fall_back=not (named or branches))
        notes += resume_notes(self.run, self.directory, checkpoint, self.store.fingerprint)
        state = TrainerState.read(checkpoint)
        is_judged_anew = state.judged_by != _judged_by(self.run)
        if is_judged_anew:
            notes.append("the best evaluation is forgotten: other data or another metric judge")
        # Another run's best checkpoint lies elsewhere and cannot be left behind here.
        if is_judged_anew or branches:
            state.best_metric = state.best_step = None
            state.evaluations_without_gain = 0
        if branches:
            state.nonfinite_in_a_row = 0  # another rate or seed may be what fixes it
        return checkpoint, state, notes

    def _built(self, model: Any, state: TrainerState) -> tuple[Any, HeadChoice]:
        """The engine, and the head that trains.

        Raises BadInput, on all ranks, if the frozen weights are not those of the state.
        """
        config, world = self.run.config, self.world
        self.tick("preparing the model")
        groups = parameter_groups(model, config.optim, head_names(model))
        model.to(world.device)
        frozen = "-".join(world.gather(frozen_digest(model, world.rank)))
        if state.frozen and state.frozen != frozen:
            what = f"its frozen weights are not those that step {state.step} was trained on"
            fix = "restore the base model that the run began with"
            raise BadInput(Problem("model.model_name_or_path", what, fix))
        state.frozen = frozen
        if config.train.bf16 and emulates_bf16(world.device):
            multiply_in_fp32(model)
        sharded = any(hasattr(parameter, "ds_id") for parameter in model.parameters())
        if not sharded:
            head = _try_out(self.run, model, world, sharded)
        optimizer = OPTIMIZERS[config.optim.optim](groups, config.optim)
        engine = build_engine(model, optimizer, deepspeed_config(config, world.size))
        if sharded:
            head = _try_out(self.run, engine.module, world, sharded)
        return engine, head

    def end(self, loop: Loop, results: dict[str, Any]) -> dict[str, Any] | None:
        """What the run leaves: the weights asked for, scored and exported. Collective."""
        engine, step = loop.engine, self._leave_best(loop)
        results["model_step"] = step  # what model/ holds, and eval_ and test_ were measured with
        try:
            for split, prefix in (("validation", "eval"), ("test", "test")):
                if split in self.run.splits:
                    seen = loop.evaluations.get((split, step)) or loop.evaluate(split, prefix, step)
                    if split == "validation" and self._tune(engine.module, seen):
                        seen = loop.evaluate(split, prefix, step)
                    results |= {f"{prefix}_{name}": value for name, value in seen.scores.items()}
                    self.events.emit("report", split=split, step=step, text=seen.report)
        except Stopped as stopped:
            loop.save_and_stop(stopped, weights_of=step)
            return None
        self.tick("exporting")
        export_model(engine, self.run.processor, self.directory, self.world)
        engine.destroy()
        gc.collect()
        if self.world.device.type == "cuda":
            torch.cuda.empty_cache()
        return results

    def _tune(self, model: Any, validation: Evaluation) -> bool:
        """What the validation set decides, for the scores of this set and the next, and for who
        uses the model. Whether it decides anything."""
        values = self.run.task.tuned(validation.metric)
        self.run.task.use_tuned(values)
        for name, value in values.items():
            setattr(base_model(model).config, name, value)
        if values:
            text = ", ".join(f"{name} {value}" for name, value in values.items())
            self.events.emit("note", text=f"tuned on the validation set: {text}")
        return bool(values)

    def _leave_best(self, loop: Loop) -> int:
        """Puts the best checkpoint into the engine, if it is asked for; the step of the weights."""
        state = loop.state
        best = self.directory.path / f"checkpoint-{state.best_step}"
        if not self.run.config.train.load_best_model_at_end or state.best_step == state.step:
            return state.step
        self.tick("loading the best checkpoint")
        why = "no evaluation had a score"
        if state.best_step is not None:
            try:
                self.store.verified(best, fall_back=False)
            except BadInput as damaged:
                why = f"there is no best checkpoint: {damaged}"
            else:
                self.store.load(loop.engine, best)
                return state.best_step
        self.events.emit("note", text=f"model/ holds the last weights, since {why}")
        return state.step


def _try_out(run: Run, model: Any, world: World, sharded: bool) -> HeadChoice:
    """Chooses the head, and sees that packed samples stay apart. Collective.

    sharded: the model is an engine's; otherwise it comes before ZeRO shards the weights.
    Raises BadInput where the model does not do what the config asks for.
    """
    collate, device = run.task.collate, world.device
    rows = [_with_target(row, collate) for row in run.probe_rows(4)]
    dtype = getattr(torch, compute_dtype(run.config.train))
    requested = run.config.model.fused_head
    batch = collate(rows).to(device)
    choice = choose_head(model, batch.inputs, batch.labels, requested, world, dtype, sharded)
    if run.config.data.packing:
        packed = collate([join(rows[:3])]).to(device)
        alone = [collate([row]).to(device) for row in rows[:3]]
        finest = dtype if run.config.model.is_flash else torch.float32
        check_packing(model, packed, alone, world, finest)
    return choice


def _with_target(row: Row, collate: Collate) -> Row:
    """The row, with a draw that gives it a target: without one, nothing could be compared."""
    drawn = (replace(row, draw=address("probe", turn)) for turn in range(MAX_DRAWS))
    return next(one for one in drawn if collate([one]).num_targets)


def _check_same_data(run: Run, world: World) -> None:
    """Raises BadInput, on all ranks, where ranks that prepared the data apart made other rows.
    Collective."""
    read = world.gather(run.data_fingerprint)
    if odd := [rank for rank, fingerprint in enumerate(read) if fingerprint != read[0]]:
        what = f"rank {', '.join(map(str, odd))} made other training rows of it than rank 0"
        fix = "give all nodes the same files, and start them on the same day where a chat template"
        raise BadInput(Problem("data", what, f"{fix} writes the date"))


def _judged_by(run: Run) -> str:
    """What tells the best checkpoint: metric, direction, and the validation set's content."""
    train, validation = run.config.train, run.splits.get("validation")
    content = b"" if validation is None else validation.content_of_record.tobytes()
    digest = hashlib.sha256(content).hexdigest()
    metric, greater = Judge.of(train).metric, train.greater_is_better
    return f"{metric}, greater is better: {greater}, data {digest[:16]}"


def _options(group: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in group.items() if key != "params"}


def _notes(config: RunConfig, world: World) -> Iterator[str]:
    if effective_zero_stage(config) != config.parallel.zero_stage:
        yield "half precision needs fp32 master weights: parallel.zero_stage 0 runs as stage 1"
    if config.train.bf16 and emulates_bf16(world.device):
        yield "this CPU has no bf16 instructions: train.bf16 saves memory here, fp32 is faster"
    if "8bit" in config.optim.optim and world.device.type == "cpu":
        yield f"optim.optim {config.optim.optim} saves memory on GPUs; on CPUs it is slow"
