"""What a user should know of prepared data, one sentence each, with numbers."""

from __future__ import annotations

import numpy as np

from bigft.config.errors import BadInput, Problem
from bigft.config.sections import DataConfig
from bigft.data.split import PreparedSplit


def record_notes(splits: dict[str, PreparedSplit]) -> list[str]:
    """What the task has to say of the records, counted, and how many samples of one split occur in
    the training split too, by content."""
    notes = []
    for name, split in splits.items():
        for note, (count, first) in split.notes().items():
            known = f"{count} of {split.num_records} records of {name}"
            notes.append(f"{known} (first {first.where}) {note}")
        if name != "train" and "train" in splits:
            train = splits["train"].content_of_record
            if shared := int(np.isin(split.content_of_record, train).sum()):
                notes.append(
                    f"{shared} of {split.num_records} records of {name} occur in train too: "
                    f"scores on {name} flatter the model"
                )
    return notes


def row_notes(data: DataConfig, splits: dict[str, PreparedSplit]) -> list[str]:
    """Rows without a target, and sentences that became several rows.

    Raises BadInput for every split without any target.
    """
    notes, problems = [], []
    for name, split in splits.items():
        empty = int((split.num_targets == 0).sum())
        if empty == len(split):
            key = f"data.{name}_file" if data.dataset_name is None else "data.dataset_name"
            what = f"every label of the {name} set is masked: there is nothing to learn or measure"
            problems.append(Problem(key, what, "check data.label_column_name"))
        elif empty:
            notes.append(f"{empty} of {len(split)} rows of {name} have no target and weigh nothing")
        if lost := int(split.lost_targets.sum()):
            whole = lost + int(split.num_targets.sum())
            notes.append(f"{lost} of {whole} targets of {name} are cut away ({lost / whole:.1%})")
        windows = np.bincount(split.record_of_row)
        if long := int((windows > 1).sum()):
            notes.append(
                f"{long} of {split.num_records} records of {name} became several rows, "
                f"{windows[windows > 1].sum()} in all"
            )
    if problems:
        raise BadInput(problems)
    return notes
