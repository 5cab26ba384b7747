"""The records of a run: what their labels are, and how many there are of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from bigft.config.errors import BadInput, Problem, collect
from bigft.config.sections import RunConfig
from bigft.config.tasks import ProblemType, TextClassification
from bigft.data.records import Record
from bigft.data.source import stream_splits
from bigft.tasks.protocol import Read, Reading
from bigft.tasks.text_classification.fields import (
    MULTI,
    REGRESSION,
    columns,
    found_in,
    normalised,
    target_of,
)
from bigft.tasks.usable import usable


def read(config: RunConfig, reading: Reading) -> Read:
    """All splits the config names, as {"text", "pair", "label", "group"} records; the labels. Fills
    `reading`.

    Raises BadInput with file and line of every record that cannot be used.
    """
    assert isinstance(config.task, TextClassification)
    data, options = config.data, config.task
    splits: dict[str, list[Record]] = {}
    problems: list[Problem] = []
    for split, records in stream_splits(data, options.reads, columns=columns(data)).items():
        with collect(problems):
            samples = usable(
                records,
                lambda record: [normalised(record, data)],
                split,
                data.on_bad_record,
                reading.notes,
            )
            splits[split] = list(samples)
    if problems:
        raise BadInput(problems)
    train = splits.get("train") or next(iter(splits.values()))
    known: ProblemType | None = reading.facts.get("problem_type")
    asked = known if options.problem_type == "auto" else options.problem_type
    found = found_in(train, data, known or asked)
    names = list(found.labels)
    outside = options.out_of_scope_label
    if outside is not None and outside not in names:
        names.append(outside)
    if known is None:
        reading.notes.append(f"task.problem_type is {found.problem_type}: {found.why}")
    counts = []
    if found.problem_type != REGRESSION:
        counts = _counts(train, found.problem_type, names, data.label_list is not None)
    reading.facts.setdefault("problem_type", found.problem_type)
    reading.facts.setdefault("label_counts", counts)
    return Read({**splits}, names)


def _counts(
    train: Sequence[Record], problem_type: ProblemType, names: Sequence[str], are_given: bool
) -> list[int]:
    """Training texts by label id. Labels that are none are refused when they are encoded."""
    ids = {name: number for number, name in enumerate(names)}
    counts: Counter[int] = Counter()
    for record in train:
        refused: list[Any] = []
        with collect(refused):
            target = target_of(record, problem_type, ids, are_given)
            found = np.flatnonzero(np.array(target) == 1) if problem_type == MULTI else target
            counts.update(map(int, found))
    return [counts[number] for number in range(len(names))]
