"""What a task is: the only thing that the data and training rooms know of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from bigft.data.records import Batch, Feature, Record

if TYPE_CHECKING:
    import torch

Prediction = dict[str, Any]
"""A task's answer for one record, JSON types only: one line of `bigft predict`."""


class Predicted(NamedTuple):
    """loss_sum: fp32 scalar, the sum over the batch's targets.  parts: one per row of the batch."""

    loss_sum: torch.Tensor
    parts: list[Prediction]


class Metric(Protocol):
    """Counts that add up over ranks; nothing is ever gathered but the counts."""

    def update(self, predictions: Sequence[Prediction], records: Sequence[Record]) -> None: ...

    def state(self) -> dict[str, Any]:
        """The counts so far as JSON types."""
        ...

    def merge(self, state: dict[str, Any]) -> None:
        """Adds the counts of another rank, as its `state()` gave them."""
        ...

    def compute(self) -> dict[str, float]:
        """Scores in [0, 1] by name, without the split's prefix (`f1`, not `eval_f1`)."""
        ...

    def report(self) -> str:
        """The same for reading: a table of plain text."""
        ...


class Task(Protocol):
    """See docs/architecture.md. Built once per process by the rows of TASKS."""

    @property
    def labels(self) -> list[str]:
        """Class names by id; [] where the task has none."""
        ...

    def encode(self, record: Record) -> list[Feature]:
        """The record's windows. Raises BadInput, naming file and line, if it cannot be used."""
        ...

    def collate(self, features: Sequence[Feature]) -> Batch: ...

    def loss_sum(self, engine: Any, batch: Batch) -> torch.Tensor:
        """fp32 scalar: the SUM of the loss over the batch's targets, through `engine(...)`."""
        ...

    def predict(self, engine: Any, batch: Batch) -> Predicted: ...

    def stitch(self, parts: Sequence[Prediction], record: Record) -> Prediction:
        """One answer for the record from the parts of its windows, in window order."""
        ...

    def metric(self) -> Metric: ...


__all__ = ["Metric", "Predicted", "Prediction", "Task"]
