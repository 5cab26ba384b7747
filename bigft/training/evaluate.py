"""Evaluation: every record once, on one rank, streamed; only counts are gathered."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from bigft.data.loader import EvalBatch, EvalLoader
from bigft.data.records import Record
from bigft.data.split import PreparedSplit
from bigft.runtime.process_group import World
from bigft.tasks.protocol import Metric, Prediction, Task


class Evaluation(NamedTuple):
    """scores: with "loss", "runtime", "samples", "samples_per_second".  report: plain text.

    metric: of all ranks.
    notes: what a user should know of what was measured, where it was prepared for that.
    """

    scores: dict[str, float]
    report: str
    metric: Metric
    notes: tuple[str, ...] = ()


def evaluate(
    engine: Any,
    task: Task,
    split: PreparedSplit,
    batch_size: int,
    world: World,
    on_prediction: Callable[[Record, Prediction], None] | None = None,
    between: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Scores of the split, the same on every rank. Collective; every rank runs as many forwards.

    batch_size: rows of one forward on one rank.  on_prediction: sees this rank's answers.
    between: called after every batch, on all ranks equally often; what it raises ends it.
    """
    started = time.monotonic()
    metric = task.metric(split)
    loader = EvalLoader(
        split, task.collate, world.rank, world.size, batch_size, world.device.type == "cuda"
    )
    loss = _LossSum(world)
    for record, prediction in _predictions(engine, task, split, loader, world, loss, between):
        metric.update([prediction], [record])
        if on_prediction is not None:
            on_prediction(record, prediction)
    states = world.gather(metric.state())
    merged = task.metric(split)
    for state in states:
        merged.merge(state)
    runtime = time.monotonic() - started
    scores = {
        "loss": loss.mean(),
        **merged.compute(),
        "runtime": runtime,
        "samples": split.num_records,
        "samples_per_second": split.num_records / runtime,
    }
    return Evaluation(scores, merged.report(), merged)


class _LossSum:
    """The loss per target over all ranks' batches; read from the device once."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._sum = torch.zeros((), dtype=torch.float64, device=world.device)
        self._targets = 0.0

    def add(self, loss_sum: torch.Tensor, targets: float) -> None:
        self._sum += loss_sum
        self._targets += targets

    def mean(self) -> float:
        total, targets = self._world.sum([self._sum.item(), self._targets])
        return total / targets if targets else 0.0


@torch.no_grad()
def _predictions(
    engine: Any,
    task: Task,
    split: PreparedSplit,
    loader: EvalLoader,
    world: World,
    loss: _LossSum,
    between: Callable[[], None],
) -> Iterator[tuple[Record, Prediction]]:
    """Each record of this rank with its answer, as soon as its last window is through."""
    engine.eval()
    parts: list[Prediction] = []
    item: EvalBatch
    for item in loader:
        predicted = task.predict(engine, item.batch.to(world.device))
        between()
        if item.is_filler:
            continue
        loss.add(predicted.loss_sum, item.batch.num_targets)
        for row, part in zip(item.batch.rows, predicted.parts, strict=True):
            parts.append(part)
            if row.window == row.num_windows - 1:
                record = split.record(row.record)
                yield record, task.stitch(parts, record)
                parts = []
