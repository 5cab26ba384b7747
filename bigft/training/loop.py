"""The training loop: steps, and between them log lines, evaluations, checkpoints, a stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch

from bigft.config.sections import TrainConfig
from bigft.data.loader import StepLoader
from bigft.data.order import Order
from bigft.data.records import Batch
from bigft.runtime.events import EventStream
from bigft.runtime.failpoints import failpoint
from bigft.runtime.proc import CONTENDED
from bigft.runtime.process_group import World
from bigft.runtime.signals import Stopped, StopRequest
from bigft.training.best import Judge
from bigft.training.checkpoint import CheckpointStore, TrainerState
from bigft.training.evaluate import Evaluation, evaluate
from bigft.training.log_interval import LogInterval
from bigft.training.nonfinite import skip_step
from bigft.training.optimizers import learning_rate_factor, set_learning_rate
from bigft.training.replicas import differing
from bigft.training.run import Run
from bigft.training.step import StepCounts, count, train_step

Tick = Callable[[str], None]


class Loop:
    """One run's training, from `state.step` to the end or to an agreed stop.

    Collective: every rank makes one with the same arguments and calls `run` once.
    """

    def __init__(
        self,
        run: Run,
        engine: Any,
        order: Order,
        world: World,
        events: EventStream,
        store: CheckpointStore,
        stop: StopRequest,
        state: TrainerState,
        tick: Tick = lambda where: None,
    ) -> None:
        """tick: told where this rank is, as often as it gets on."""
        self._run, self.engine, self._order = run, engine, order
        self._world, self._events, self._store = world, events, store
        self._stop, self.state, self._tick = stop, state, tick
        self._train: TrainConfig = run.config.train
        self.total_steps = order.total_steps(self._train.num_train_epochs, self._train.max_steps)
        self._interval = LogInterval.begun(state, world)
        self._learning_rate = self._grad_norm = 0.0
        self._judge = Judge.of(self._train)
        self._stopped_early = self._judge.gives_up(state)
        self.evaluations: dict[tuple[str, int], Evaluation] = {}  # by split and step
        self._last_save = state.step if state.step else -1
        self._told_contention = False
        stop.took(0.0, state.save_seconds)

    # -- the loop -----------------------------------------------------------------------------

    def run(self) -> bool:
        """Trains; True when done (or stopped early), False when a stop was asked for."""
        train, state = self._train, self.state
        try:
            if state.evaluation_due:  # a stop cut it short
                self._evaluate_and_save()
            with StepLoader(
                self._run.splits["train"],
                self._order,
                self._run.task.collate,
                self._world.rank,
                self._world.size,
                max_samples=train.per_device_train_batch_size,
                max_tokens=train.per_device_train_batch_tokens,
                last_step=self.total_steps - 1,
                pin_memory=self._world.device.type == "cuda",
            ) as loader:
                while state.step < self.total_steps and not self._stopped_early:
                    self._step(loader)
                    self._after_step()
        except Stopped as stopped:
            self.save_and_stop(stopped, weights_of=state.step)
            return False
        if train.save_strategy != "no" or train.load_best_model_at_end:
            # Also where only the best are kept: what comes now may be interrupted too.
            self._save("last")
        return True

    def save_and_stop(self, stopped: Stopped, weights_of: int) -> None:
        """What all ranks do that have agreed to stop. Collective.

        weights_of: the step whose weights the engine holds; not the last one where the best were
        loaded. Raises RuntimeError, on all ranks, if the last step cannot be saved: it is lost.
        """
        step, why = self.state.step, ""
        self._events.emit("signal", signal=str(stopped), step=step)
        if weights_of == step:
            why = self._save("signal")
        elif self._last_save != step:
            why = f"its save failed, and then the weights of step {weights_of} took its place"
        if why:
            raise RuntimeError(f"stopped by {stopped}, and step {step} could not be saved: {why}")

    def _step(self, loader: StepLoader) -> None:
        started = time.monotonic()
        state, optim = self.state, self._run.config.optim
        self._tick(f"reading step {state.step + 1}")
        failpoint("train.step")
        batches = loader.batches(state.step)
        self._tick(f"counting step {state.step + 1}")
        counts = count(self._world, batches, bool(self._stop))
        if counts.stop_requests:
            raise Stopped(self._stop.reason(self._world))
        factor = learning_rate_factor(optim, state.step, self.total_steps)
        self._learning_rate = set_learning_rate(self.engine.optimizer, factor)
        self._grad_norm = 0.0
        if counts.targets == 0:
            state.skipped_steps += 1
        else:
            self._train_step(batches, counts)
        self._interval.tokens += counts.tokens
        state.step += 1
        self._stop.took(time.monotonic() - started, state.save_seconds)

    def _train_step(self, batches: list[Batch], counts: StepCounts) -> None:
        state, task = self.state, self._run.task
        done = train_step(
            self.engine,
            task,
            batches,
            counts.targets,
            self._world,
            self._train.seed,
            state.step,
            self._tick,
        )
        self._grad_norm = done.grad_norm
        if done.nonfinite:
            skip_step(
                done,
                self.engine.module,
                batches,
                self._run.splits["train"],
                state,
                self._train.max_nonfinite_steps,
                self._world,
                self._events,
            )
            return
        state.nonfinite_in_a_row = 0
        self._interval.loss_sum += done.loss_sum
        self._interval.targets += counts.targets

    def _after_step(self) -> None:
        train, step = self._train, self.state.step
        every = self._run.config.parallel.replica_check_steps
        if (
            every is not None
            and step % every == 0
            and (found := differing(self.engine, self._world))
        ):
            raise RuntimeError(f"after step {step}: {found}")  # the last checkpoint may be sound
        if self._logs_now():
            self._log()
        self.state.evaluation_due = "validation" in self._run.splits and self._is_due(
            train.eval_strategy, train.eval_steps
        )
        self._evaluate_and_save()

    def _logs_now(self) -> bool:
        step = self.state.step
        return step % self._train.logging_steps == 0 or step == self.total_steps

    def _evaluate_and_save(self) -> None:
        """What comes after a step and its log line, as far as it is due. Collective."""
        train, state = self._train, self.state
        is_best = False
        if state.evaluation_due:
            is_best = self._evaluate()
            state.evaluation_due = False
        if self._stopped_early and not self._logs_now():
            self._log()  # before the checkpoint, which then holds the whole run's sums
        keeps_best = train.save_strategy == "best" or train.load_best_model_at_end
        if self._is_due(train.save_strategy, train.save_steps) or (is_best and keeps_best):
            self._save("best" if is_best else train.save_strategy)

    def _is_due(self, strategy: str, every: int) -> bool:
        """Whether what happens by "epoch" or every so many "steps" happens after this step."""
        step = self.state.step
        if strategy == "epoch":
            return self._order.position(step)[1] == 0 or step == self.total_steps
        return strategy == "steps" and step % every == 0

    # -- between steps ------------------------------------------------------------------------

    def epoch(self, step: int) -> float:
        """How often the data has been seen after so many steps."""
        epoch, index = self._order.position(step)
        return epoch + index / self._order.steps_in_epoch(epoch)

    def _log(self) -> None:
        """Emits the interval's means over all ranks and opens the next one. Collective."""
        state, interval = self.state, self._interval
        means = interval.close(state, self._world)
        self._events.emit(
            "log",
            step=state.step,
            epoch=self.epoch(state.step),
            loss=means.pop("loss"),
            learning_rate=self._learning_rate,
            grad_norm=self._grad_norm,
            **means,
        )
        if means["cpu_wait"] >= CONTENDED and not self._told_contention:
            self._told_contention = True
            self._events.emit("cpu_contention", step=state.step, cpu_wait=means["cpu_wait"])
        self._interval = LogInterval(torch.zeros_like(interval.loss_sum))

    def _evaluate(self) -> bool:
        """Scores the validation set; returns whether it is the best so far. Collective."""
        started = time.monotonic()
        state, judge = self.state, self._judge
        scores = self.evaluate("validation", "eval", state.step).scores
        is_best = judge.judge(scores, state)
        if judge.gives_up(state):
            self._stopped_early = True
            self._events.emit(
                "note",
                text=f"stopped early: {judge.patience} evaluations without a better {judge.metric}",
            )
        self._interval.paused += time.monotonic() - started
        return is_best

    def evaluate(self, split: str, prefix: str, step: int) -> Evaluation:
        """Scores one split with the weights of `step` and emits the scores. Collective.

        Raises Stopped, on all ranks, after the batch during which a stop was asked for.
        """
        failpoint("train.evaluate")
        last = time.monotonic()

        def between() -> None:
            nonlocal last
            self._tick(f"evaluating {split}")
            now = time.monotonic()
            self._stop.took(now - last, self.state.save_seconds)
            last = now
            if self._stop.agreed(self._world):
                raise Stopped(self._stop.reason(self._world))

        result = evaluate(
            self.engine,
            self._run.task,
            self._run.splits[split],
            self._train.per_device_eval_batch_size,
            self._world,
            between=between,
        )
        self.evaluations[split, step] = result
        self._events.emit(
            "eval",
            split=split,
            step=step,
            epoch=self.epoch(step),
            **{f"{prefix}_{name}": value for name, value in result.scores.items()},
        )
        return result

    def results(self) -> dict[str, Any]:
        """What all_results.json tells of the training."""
        state = self.state
        return {
            "train_loss": state.total_loss / (state.total_targets or 1.0),
            "train_samples": len(self._run.splits["train"]),
            "step": state.step,
            "train_skipped_steps": state.skipped_steps,
            "train_nonfinite_steps": state.nonfinite_steps,
            "train_tokens_per_second": state.total_tokens / max(state.training_seconds, 1e-9),
            "epoch": self.epoch(state.step),
        }

    def _save(self, kind: str) -> str:
        """Writes a checkpoint of this step, unless there is one. Collective.

        Returns why it could not be written, or "". That is told and counted; training may go on.
        """
        started = time.monotonic()
        state = self.state
        if state.step == self._last_save:
            self._store.point_best_at(state.best_step)
            return ""
        self._tick(f"saving step {state.step}")
        self._interval.keep(state, self._world, started)
        state.world_size = self._world.size
        saved = self._store.save(self.engine, state)
        seconds = time.monotonic() - started
        self._interval.paused += seconds
        if saved.path is None:
            state.failed_saves += 1
            self._events.emit("save_failed", step=state.step, why=saved.why)
            return saved.why
        self._last_save = state.step
        state.save_seconds = max(state.save_seconds, seconds)
        self._events.emit(
            "checkpoint",
            step=state.step,
            path=saved.path.name,
            seconds=seconds,
            num_bytes=saved.num_bytes,
            kind=kind,
        )
        return ""
