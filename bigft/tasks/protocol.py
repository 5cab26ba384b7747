"""What a task is: all that bigft/data, bigft/training and bigft/cli know of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import IntEnum
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from bigft.config.sections import RunConfig
from bigft.data.prepare import Encoded, one_by_one
from bigft.data.records import Batch, Record, Row
from bigft.data.split import PreparedSplit
from bigft.data.tag_spellings import Tagging

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from transformers import PreTrainedModel

    from bigft.models.limits import Limit

Prediction = dict[str, Any]
"""A task's answer for one record, JSON types only: one line of `bigft predict`."""


@dataclass(slots=True)
class Reading:
    """What goes along with the reading of a run's data, beside the records.

    tagging: how the run's training set writes its tags; None: not known, to be found.
    facts: of `Task.facts`, as the model's config says them; what is not there is found, and added.
    notes: takes what a user should know of the data, one sentence each.
    """

    tagging: Tagging | None = None
    facts: dict[str, Any] = field(default_factory=dict)
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
    """

    certainty: Certainty
    keys: dict[str, Any] = field(default_factory=dict)
    comment: str = ""


class Start(NamedTuple):
    """What `bigft init` asks of a task.

    wants: what its samples look like, in a line.
    model: the hub id of a public model to begin with.  of_model: what to know of it.
    guesses: (paths, format, records) -> the ways in which the task may read a file (of parallel
        text a pair), the likeliest first. records: its first ones; columns without names are called
        "0", "1", ...
    by_data: whether data tells that the task is meant; one that reads any text is to be named.
    """

    wants: str
    model: str
    of_model: str
    guesses: Callable[[Sequence[str], str, Sequence[Record]], Iterator[Guess]]
    by_data: bool = True


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


class Read(NamedTuple):
    """splits: records by split, as far as the config names it. A stream is read once; what is wrong
    with it is raised when it ends.  labels: class names by id; [] where the task has none."""

    splits: dict[str, Iterable[Record]]
    labels: list[str]


@dataclass(frozen=True, slots=True)
class Setting:
    """What a task is built for.

    processor: a tokenizer, or an image processor: what the task's `reads` asks for.
    labels: class names by id.
    limit: how long a row may be, and what says so; None: no bound.
    clock: the day that a chat template takes for today; None: the present.
    facts: what `Task.read` found in the training data, or the model's config says of it.
    """

    config: RunConfig
    processor: Any
    labels: Sequence[str] = ()
    limit: Limit | None = None
    clock: date | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def max_length(self) -> int | None:
        """Tokens of a row at most."""
        return self.limit.tokens if self.limit else None

    @property
    def cut_by(self) -> str:
        """What says so, for notes and errors."""
        return self.limit.source if self.limit else ""


class Task(Protocol):
    """What training needs of a task; see docs/architecture.md. Built once per process.

    A task inherits it, so that what is no concern of its own says nothing.

    labels: class names by id; [] where the task has none.
    auto_class: the name of transformers' Auto class that the task trains: the class's, or where
        options decide the instance's.
    facts: names of what `read` finds in the training data beside the labels. `model_options` puts
        it into the model's config, where those find it who have the model alone.
    unit: what the length of a row counts.
    start: how a first config for it is written.
    """

    facts: ClassVar[tuple[str, ...]] = ()
    unit: ClassVar[str] = "tokens"
    labels: list[str]
    auto_class: str
    start: ClassVar[Start]

    def __init__(self, setting: Setting) -> None:
        """Raises BadInput if an option cannot be used."""

    @classmethod
    def read(cls, config: RunConfig, reading: Reading | None = None) -> Read:
        """The data that the config names, each record in the task's one form; fills `reading`."""
        ...

    @classmethod
    def writes_clock(cls, config: RunConfig, processor: Any) -> bool:
        """Whether rows hold the day that they are made on."""
        return False

    def encode(self, record: Record) -> list[Row]:
        """The record's windows. Raises BadInput, naming file and line, if it cannot be used."""
        ...

    def encode_all(self, records: Iterable[Record]) -> Iterator[Encoded]:
        """Of each record its rows, or what `encode` raises. A task may work on several at once, and
        put them into rows that they share: each row belongs to the record that begins it."""
        return one_by_one(self.encode)(records)

    def collate(self, rows: Sequence[Row]) -> Batch:
        """On the CPU. Rows that are packed (with `parts`) hold samples that do not see each other.
        What is drawn for a row is a function of its `draw`."""
        ...

    def preview(self, row: Row) -> list[tuple[str, bool]]:
        """The row as text, cut where it turns into targets (True) or ceases to be."""
        ...

    def sides(self, split: PreparedSplit) -> dict[str, NDArray[np.int64]]:
        """The lengths of a row's sides by their name, one per row: what `bigft check` shows."""
        return {"row": split.lengths}

    def targets(self, split: PreparedSplit) -> str:
        """How many targets the split has, in words."""
        return f"{split.num_targets.sum():,} targets"

    def examples(self, train: PreparedSplit) -> list[str]:
        """What else `bigft check` shows of the training set, a line each."""
        return []

    def model_options(self) -> dict[str, Any]:
        """What the model's config must say of the labels."""
        return {}

    def attach_head(self, model: PreTrainedModel) -> None:
        """Makes the model's forward answer what `loss` and `predict` ask for: see models/heads."""
        ...

    def loss(self, engine: Any, batch: Batch, scale: float) -> Loss:
        """Of the batch's targets, through `engine(...)`."""
        ...

    def uniform_loss(self) -> float | None:
        """The loss per target of a model that gives every answer the same probability; None where
        there is no such thing."""
        return None

    def predict(self, engine: Any, batch: Batch) -> Predicted: ...

    def stitch(self, parts: Sequence[Prediction], record: Record) -> Prediction:
        """One answer for the record from the parts of its windows, in window order."""
        ...

    def metric(self, split: PreparedSplit | None = None) -> Metric:
        """split: what is measured, where it decides how; None: for the names of the scores."""
        ...

    def tuned(self, metric: Metric) -> dict[str, Any]:
        """What an evaluation of the validation set decides of answers (thresholds), as the model's
        config says it, in JSON values; {} where nothing is to be decided."""
        return {}

    def use_tuned(self, values: Mapping[str, Any]) -> None:
        """Answers and metrics go by it from now on.

        values: what `tuned` gave, or a model's whole config.
        """
        return

    def notes(self, split: PreparedSplit) -> list[str]:
        """How the answers to this split are measured, where that is not plain."""
        return []


@runtime_checkable
class Prompts(Protocol):
    """What `bigft predict` needs of a task besides."""

    def prompt(self, given: str | Mapping[str, Any], index: int, file: str, line: int) -> Record:
        """A text, or an object of a file, as a record without labels.

        Raises BadInput, naming file and line, for an object that the task cannot use.
        """
        ...

    def encode_prompt(self, record: Record) -> list[Row]:
        """The record as rows for `answer`."""
        ...

    def answer(self, engine: Any, batch: Batch) -> list[Prediction]:
        """One part per row of prompts, which `Task.stitch` puts together."""
        ...


@runtime_checkable
class Submits(Protocol):
    """What `bigft evaluate --predictions` needs of a task besides."""

    def submission(self, record: Record, prediction: Prediction) -> tuple[str, str]:
        """A key and its value of the JSON object that the official scorers of its data sets read:
        the record's id and the answer."""
        ...


@runtime_checkable
class Chats(Protocol):
    """What `bigft predict --chat` needs of a task besides."""

    def check_chat(self) -> None:
        """Raises BadInput if this run's model cannot be talked with."""
        ...

    def reply(
        self,
        engine: Any,
        messages: Sequence[Mapping[str, str]],
        draw: int,
        write: Callable[[str], object],
    ) -> str:
        """What the model says next.

        draw: the address of what is drawn for it.  write: gets the text as it comes, and a line
        break at its end.
        Raises BadInput for messages that the template refuses.
        """
        ...


__all__ = [
    "Chats",
    "Loss",
    "Metric",
    "Predicted",
    "Prediction",
    "Prompts",
    "Read",
    "Reading",
    "Setting",
    "Submits",
    "Task",
]
