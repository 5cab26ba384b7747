"""The training loop: steps, and between them log lines, evaluations, checkpoints, a stop."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from bigft.config.sections import TrainConfig
from bigft.data.loader import StepLoader
from bigft.data.order import Order
from bigft.data.records import Batch
from bigft.ops import native
from bigft.runtime.events import EventStream
from bigft.runtime.process_group import World
from bigft.runtime.signals import StopRequest
from bigft.training.build import Run
from bigft.training.checkpoint import CheckpointStore, TrainerState
from bigft.training.evaluate import Evaluation, evaluate
from bigft.training.optimizers import learning_rate_factor, set_learning_rate
from bigft.training.step import StepCounts, count, train_step


class TrainingFailed(RuntimeError):
    """The run cannot go on; the last checkpoint is intact. str() says why and what was seen."""


@dataclass(slots=True)
class _Window:
    """What was seen since the last log line. The loss stays on the device until that line."""

    loss_sum: torch.Tensor
    targets: int
    tokens: int = 0
    started: float = field(default_factory=time.monotonic)
    paused: float = 0.0  # seconds of evaluations and saves, which are no training


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
    ) -> None:
        self._run, self._engine, self._order = run, engine, order
        self._world, self._events, self._store = world, events, store
        self._stop, self._state = stop, state
        self._train: TrainConfig = run.config.train
        self.total_steps = order.total_steps(self._train.num_train_epochs, self._train.max_steps)
        loss = state.loss_sums[world.rank] if state.loss_sums else 0.0
        self._window = _Window(
            torch.tensor(loss, dtype=torch.float64, device=world.device), state.window_targets
        )
        self._learning_rate = self._grad_norm = 0.0
        patience = self._train.early_stopping_patience
        self._stopped_early = patience is not None and state.evaluations_without_gain >= patience
        self.evaluations: dict[tuple[str, int], Evaluation] = {}  # by split and step
        self._last_log = self._last_save = state.step if state.step else -1

    # -- the loop -----------------------------------------------------------------------------

    def run(self) -> bool:
        """Trains; True when done (or stopped early), False when a signal asked for a stop."""
        train, state = self._train, self._state
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
                batches = loader.batches(state.step)
                counts = count(self._world, batches, bool(self._stop))
                if counts.stop_requests:
                    self._events.emit("signal", signal=self._stop.name, step=state.step)
                    self._save("signal")
                    return False
                self._step(batches, counts)
                self._after_step()
        if train.save_strategy in ("steps", "epoch"):
            self._save("last")
        return True

    def _step(self, batches: list[Batch], counts: StepCounts) -> None:
        state = self._state
        config = self._run.config
        factor = learning_rate_factor(config.optim, state.step, self.total_steps)
        self._learning_rate = set_learning_rate(self._engine.optimizer, factor)
        self._grad_norm = 0.0
        if counts.targets == 0:
            state.skipped_steps += 1
        else:
            self._window.loss_sum += train_step(
                self._engine,
                self._run.task,
                batches,
                counts.targets,
                self._world,
                self._train.seed,
                state.step,
            )
            # The step's one host read.
            self._grad_norm = float(self._engine.get_global_grad_norm() or 0.0)
            if not math.isfinite(self._grad_norm) and not self._train.fp16:
                self._fail("gradient", self._grad_norm, batches)
        state.step += 1
        self._window.targets += counts.targets
        self._window.tokens += counts.tokens

    def _fail(self, what: str, value: float, batches: Sequence[Batch] = ()) -> None:
        """Ends the run. batches: of the step, where it is known which one it was."""
        step = self._state.step
        try:
            native.check_labels(self._world.device)
        except IndexError as error:
            raise TrainingFailed(f"step {step}: {error}") from error
        split = self._run.splits["train"]
        features = [feature for batch in batches for feature in batch.features]
        rows = sorted({sample.record for feature in features for sample in feature.samples})
        where = ", ".join(split.record(row).where for row in rows[:8])
        samples = f"; this rank's samples: {where}" if where else ""
        raise TrainingFailed(
            f"the {what} is not finite in step {step} ({value}){samples}. "
            "Lower optim.learning_rate, or continue from the last checkpoint with "
            "train.resume_from_checkpoint=true"
        )

    def _after_step(self) -> None:
        train, step = self._train, self._state.step
        if step % train.logging_steps == 0 or step == self.total_steps:
            self._log()
        is_best = False
        if "validation" in self._run.splits and self._is_due(train.eval_strategy, train.eval_steps):
            is_best = self._evaluate()
        if self._stopped_early and self._last_log != step:
            self._log()  # before the checkpoint, which then holds the whole run's sums
        keeps_best = train.save_strategy == "best" or train.load_best_model_at_end
        if self._is_due(train.save_strategy, train.save_steps) or (is_best and keeps_best):
            self._save("best" if is_best else train.save_strategy)

    def _is_due(self, strategy: str, every: int) -> bool:
        """Whether what happens by "epoch" or every so many "steps" happens after this step."""
        step = self._state.step
        if strategy == "epoch":
            return self._order.position(step)[1] == 0 or step == self.total_steps
        return strategy == "steps" and step % every == 0

    # -- between steps ------------------------------------------------------------------------

    def epoch(self, step: int) -> float:
        """How often the data has been seen after so many steps."""
        epoch, index = self._order.position(step)
        return epoch + index / self._order.steps_in_epoch(epoch)

    def _log(self) -> None:
        """Emits the window's means over all ranks and opens the next one. Collective."""
        window, state = self._window, self._state
        (loss_sum,) = self._world.sum([window.loss_sum.item()])
        if not math.isfinite(loss_sum) and not self._train.fp16:
            self._fail("loss", loss_sum)
        seconds = time.monotonic() - window.started - window.paused
        self._events.emit(
            "log",
            step=state.step,
            epoch=self.epoch(state.step),
            loss=loss_sum / max(window.targets, 1),
            learning_rate=self._learning_rate,
            grad_norm=self._grad_norm,
            num_targets=window.targets,
            num_tokens=window.tokens,
            tokens_per_second=window.tokens / seconds,
        )
        state.total_loss += loss_sum
        state.total_targets += window.targets
        state.total_tokens += window.tokens
        state.training_seconds += seconds
        self._window = _Window(torch.zeros_like(window.loss_sum), 0)
        self._last_log = state.step

    def _evaluate(self) -> bool:
        """Scores the validation set; returns whether it is the best so far. Collective."""
        started = time.monotonic()
        state, train = self._state, self._train
        scores = self.evaluate("validation", "eval", state.step).scores
        name = (train.metric_for_best_model or "loss").removeprefix("eval_")
        if name not in scores:
            raise TrainingFailed(
                f"train.metric_for_best_model: there is no metric {name!r}; "
                f"there are {', '.join(sorted(scores))}"
            )
        greater = train.greater_is_better
        if greater is None:
            greater = not name.endswith("loss")
        score, best = scores[name], state.best_metric
        is_best = best is None or math.isnan(best) or (score > best if greater else score < best)
        if is_best:
            state.best_metric, state.best_step = score, state.step
            state.evaluations_without_gain = 0
        else:
            state.evaluations_without_gain += 1
        patience = train.early_stopping_patience
        if patience is not None and state.evaluations_without_gain >= patience:
            self._stopped_early = True
            self._events.emit(
                "note",
                text=f"stopped early: {patience} evaluations without a better {name}",
            )
        self._window.paused += time.monotonic() - started
        return is_best

    def evaluate(self, split: str, prefix: str, step: int) -> Evaluation:
        """Scores one split with the weights of `step` and emits the scores. Collective."""
        result = evaluate(
            self._engine,
            self._run.task,
            self._run.splits[split],
            self._train.per_device_eval_batch_size,
            self._world,
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

    def _save(self, kind: str) -> None:
        """Writes a checkpoint of this step, unless this run did already. Collective."""
        started = time.monotonic()
        state = self._state
        if state.step == self._last_save:
            return
        state.loss_sums = self._world.gather(self._window.loss_sum.item())
        state.window_targets = self._window.targets
        state.world_size = self._world.size
        path = self._store.save(self._engine, state)
        self._last_save = state.step
        seconds = time.monotonic() - started
        self._events.emit("checkpoint", step=state.step, path=path.name, seconds=seconds, kind=kind)
        self._window.paused += seconds
