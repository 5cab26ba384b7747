"""What travels through the data room: a Record becomes Features, Features become a Batch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

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
class Feature:
    """One row that the model sees: a record, or one window of it.

    record: index of the Record it came from.  window: 0-based.  num_windows: of that record.
    input_ids_T: token ids.  labels_T: class ids, IGNORE_INDEX where there is no target.
    columns: further integer columns of the task, each a list (word numbers of tokens, say).
    lost_targets: targets of the record that stand in no row, since it was cut.
    parts: of a packed row the features that it is made of, in their order; never stored.
    notes: what a user should know of the record, each as what follows "3 records"; stored with it.
    """

    record: int
    window: int
    num_windows: int
    input_ids_T: list[int]
    labels_T: list[int]
    columns: dict[str, list[int]] = field(default_factory=dict)
    lost_targets: int = 0
    parts: tuple[Feature, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def samples(self) -> tuple[Feature, ...]:
        """The features of the row: those it is packed from, or itself."""
        return self.parts or (self,)

    @property
    def length(self) -> int:
        """Of the longer side, where labels are a text of their own (encoder and decoder)."""
        return max(len(self.input_ids_T), len(self.labels_T))

    @property
    def num_targets(self) -> int:
        return len(self.labels_T) - self.labels_T.count(IGNORE_INDEX)


@dataclass(slots=True)
class Batch:
    """Features as tensors, padded to the longest.

    inputs: what the model's forward takes (input_ids_BT, attention_mask_BT, ...).
    labels_BT: int64, already shifted where the task shifts; IGNORE_INDEX is no target.
    target_rows_M: int64, the rows of the flattened labels that are targets; stays on the CPU.
    num_targets, num_tokens: real ones, without padding.
    features: the rows' Features, in the order of the rows.
    """

    inputs: dict[str, torch.Tensor]
    labels_BT: torch.Tensor
    target_rows_M: torch.Tensor
    num_targets: int
    num_tokens: int
    features: list[Feature]

    def to(self, device: torch.device) -> Batch:
        inputs = {name: value.to(device, non_blocking=True) for name, value in self.inputs.items()}
        labels_BT = self.labels_BT.to(device, non_blocking=True)
        return Batch(
            inputs,
            labels_BT,
            self.target_rows_M,
            self.num_targets,
            self.num_tokens,
            self.features,
        )

    def without_targets(self) -> Batch:
        """The same rows at weight zero: what a rank runs that has no sample of its own left."""
        labels_BT = self.labels_BT.new_full(self.labels_BT.shape, IGNORE_INDEX)
        return Batch(self.inputs, labels_BT, self.target_rows_M[:0], 0, 0, self.features)
