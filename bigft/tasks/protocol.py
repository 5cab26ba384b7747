"""What a task is: the only thing that the data and training rooms know of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from bigft.config.sections import RunConfig
from bigft.data.prepare import PreparedSplit
from bigft.data.records import Batch, Feature, Record
from bigft.data.tag_spellings import Tagging

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Prediction = dict[str, Any]
"""A task's answer for one record, JSON types only: one line of `bigft predict`."""


@dataclass(slots=True)
class Reading:
    """What goes along with the reading of a run's data, beside the records.

    tagging: how the run's training set writes its tags; None: not known, to be found.
    notes: takes what a user should know of the data, one sentence each.
    """

    tagging: Tagging | None = None
    notes: list[str] = field(default_factory=list)


class Certainty(IntEnum):
    """How surely data is meant for a task.

    KNOWN: it has the fields that the task looks for.  USUAL: fields with names that many use.
    FALLBACK: the task can read it, as it can read nearly everything.
    """

    FALLBACK = 0
    USUAL = 1
    KNOWN = 2


@dataclass(frozen=True, slots=True)
class Guess:
    """A way to read data: values of keys of the config, by dotted name.

    comment: what a user should know of it, for a line of the config; "" for nothing.
    doubt: why it is likely not what is meant, for a refusal; "" where nothing speaks against it.
    """

    certainty: Certainty
    keys: dict[str, Any] = field(default_factory=dict)
    comment: str = ""
    doubt: str = ""


class Start(NamedTuple):
    """What `bigft init` asks of a task.

    wants: what its samples look like, in a line.
    model: the hub id of a public model to begin with.  of_model: what to know of it.
    guesses: (paths, format, records) -> the ways in which the task may read a file (of parallel
        text a pair), the likeliest first. records: its first ones; columns without names are called
        "0", "1", ...
    """

    wants: str
    model: str
    of_model: str
    guesses: Callable[[Sequence[str], str, Sequence[Record]], Iterator[Guess]]


class Loss(NamedTuple):
    """scaled: fp32 scalar, scale * loss_sum: what backward is called on, directly.

    loss_sum: fp32 scalar, detached: the SUM over the batch's targets, never a mean.
    """

    scaled: torch.Tensor
    loss_sum: torch.Tensor


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
        """Scores by name, the most telling first; no split's prefix (`f1`, not `eval_f1`)."""
        ...

    def report(self) -> str:
        """The same for reading: a table of plain text."""
        ...


class Task(Protocol):
    """See docs/architecture.md. Built once per process by the rows of TASKS.

    labels: class names by id; [] where the task has none.
    auto_class: the name of transformers' Auto class that the task trains.
    start: how a first config for it is written.
    """

    labels: list[str]
    auto_class: str
    start: Start

    @classmethod
    def read(
        cls, config: RunConfig, reading: Reading | None = None
    ) -> tuple[dict[str, Iterable[Record]], list[str]]:
        """The records of every split that the config names, and the labels; fills `reading`.

        A split may be a stream that is read once; what is wrong with it is raised when it ends.
        """
        ...

    def __init__(
        self,
        config: RunConfig,
        tokenizer: PreTrainedTokenizerBase,
        labels: Sequence[str],
        max_length: int | None,
        cut_by: str = "data.max_seq_length",
        clock: date | None = None,
    ) -> None:
        """max_length: tokens of a row at most.  cut_by: what says so, for notes and errors.

        clock: the day that a chat template takes for today; None: the present.
        """
        ...

    def encode(self, record: Record) -> list[Feature]:
        """The record's windows. Raises BadInput, naming file and line, if it cannot be used."""
        ...

    def preview(self, feature: Feature) -> list[tuple[str, bool]]:
        """The row as text, cut where it turns into targets (True) or ceases to be."""
        ...

    def collate(self, features: Sequence[Feature]) -> Batch:
        """Features that are packed (with `parts`) are rows whose samples do not see each other."""
        ...

    def loss(self, engine: Any, batch: Batch, scale: float) -> Loss:
        """Of the batch's targets, through `engine(...)`."""
        ...

    def predict(self, engine: Any, batch: Batch) -> Predicted: ...

    def stitch(self, parts: Sequence[Prediction], record: Record) -> Prediction:
        """One answer for the record from the parts of its windows, in window order."""
        ...

    def metric(self, split: PreparedSplit | None = None) -> Metric:
        """split: what is measured, where it decides how; None: for the names of the scores."""
        ...

    def notes(self, split: PreparedSplit) -> list[str]:
        """How the answers to this split are measured, where that is not plain."""
        ...

    def model_options(self) -> dict[str, Any]:
        """What the model's config must say of the labels."""
        ...

    def attach_head(self, model: PreTrainedModel) -> None:
        """Makes the model's forward answer what `loss` and `predict` ask for: see models/heads."""
        ...

    def text_record(self, text: str, index: int) -> Record:
        """A text of `bigft predict` as a record without labels."""
        ...

    def encode_prompt(self, record: Record) -> list[Feature]:
        """A record without labels as rows for `answer`."""
        ...

    def answer(self, engine: Any, batch: Batch) -> list[Prediction]:
        """One part per row of prompts, which `stitch` puts together."""
        ...


__all__ = ["Loss", "Metric", "Predicted", "Prediction", "Reading", "Task"]
