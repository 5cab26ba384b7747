"""What travels through bigft/data: a Record becomes Rows, Rows become a Batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    import torch

IGNORE_INDEX = -100  # a label that is no target: torch's and transformers' convention


@dataclass(frozen=True, slots=True)
class Record:
    """One sample as its file states it.

    index: 0-based position in its split, over all files of the split.
    fields: column name -> value (JSON types only), as the reader found it.
    file, line: where it begins; line is 1-based (the row number where a format has no lines).
    notes: what its reader changed or found odd, each as what follows "3 records".
    """

    index: int
    fields: Mapping[str, Any]
    file: str
    line: int
    notes: tuple[str, ...] = ()

    @property
    def where(self) -> str:
        return f"{self.file}:{self.line}"


@dataclass(frozen=True, slots=True)
class Row:
    """What the model sees of a record: all of it, or one window.

    record: index of the Record it came from.  window: 0-based.  num_windows: of that record.
    length: what order, packing and the bounds on a batch count: tokens of a text, 1 of an image.
    num_targets: at most so many; a task that draws its targets when a batch is made draws fewer.
    columns: what the task stores: of every name a list of integers, or in every row one of floats.
        Of what a row only points to (a picture) its hash belongs here: the columns of the training
        set are what tells whether a run goes on with the same data.
    lost_targets: targets of the record that stand in no row, since it was cut.
    parts: of a packed row the rows that it is made of, in their order; never stored.
    draw: the address (`seeding.address`) of what is drawn for this row when it is collated: in
        training of seed, epoch, sample and its occurrence in the epoch, in evaluation of the split
        and the row alone. The same in every layout and after a resume; never stored.
    notes: what a user should know of the record, each as what follows "3 records"; stored with it.
    """

    record: int
    window: int
    num_windows: int
    length: int
    num_targets: int
    columns: dict[str, list[Any]] = field(default_factory=dict)
    lost_targets: int = 0
    parts: tuple[Row, ...] = ()
    draw: int = 0
    notes: tuple[str, ...] = ()

    @property
    def samples(self) -> tuple[Row, ...]:
        """The rows that this one is packed from, or itself."""
        return self.parts or (self,)


class Note(NamedTuple):
    """What a user should know of a record that may have no row of its own, as `Row.notes`."""

    record: int
    text: str


@dataclass(slots=True)
class Batch:
    """Rows as tensors.

    inputs: what the model's forward takes (input_ids_BT, attention_mask_BT, ...).
    labels: of any shape, as the task's head documents it. Class ids are int64, aligned with what
        predicts them, IGNORE_INDEX where there is no target; of real numbers NaN is no target.
    target_rows_M: int64, the places of the flattened labels that are targets; stays on the CPU.
    num_targets: that count; not a whole number where targets weigh a fraction each (the windows of
        a text that is classified as one).
    size: the rows' real tokens, without padding, or what their length counts.
    rows: in the order of the batch.
    """

    inputs: dict[str, torch.Tensor]
    labels: torch.Tensor
    target_rows_M: torch.Tensor
    num_targets: float
    size: int
    rows: list[Row]

    def to(self, device: torch.device) -> Batch:
        inputs = {name: value.to(device, non_blocking=True) for name, value in self.inputs.items()}
        labels = self.labels.to(device, non_blocking=True)
        return replace(self, inputs=inputs, labels=labels)

    def without_targets(self) -> Batch:
        """The same rows at weight zero: what a rank runs that has no sample of its own left."""
        no_target = float("nan") if self.labels.is_floating_point() else IGNORE_INDEX
        labels = self.labels.new_full(self.labels.shape, no_target)
        none_M = self.target_rows_M[:0]
        return replace(self, labels=labels, target_rows_M=none_M, num_targets=0, size=0)
