"""Labels of the data as classes of a model: their names, and what a target of each weighs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bigft.config.errors import BadInput, Problem
from bigft.config.optim import OptimConfig


def label_options(labels: Sequence[str]) -> dict[str, Any]:
    """What the model's config must say of labels by id."""
    return {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: number for number, label in enumerate(labels)},
    }


def class_weights(
    optim: OptimConfig, labels: Sequence[str], counts: Sequence[int]
) -> list[float] | None:
    """What a target of each label weighs, by id; None: 1.

    balanced: all targets / (labels with a target * targets of the label), as scikit-learn has it.

    counts: targets of the training set by label id; [] where they are not known, as of a model
        whose run is gone.
    Raises BadInput for a label that is none.
    """
    if optim.class_weights is None:
        return None
    if optim.class_weights == "balanced":
        seen = sum(count > 0 for count in counts)
        return [sum(counts) / (seen * count) if count else 1.0 for count in counts] or None
    if unknown := sorted(set(optim.class_weights) - set(labels)):
        what = f"no label {', '.join(map(repr, unknown))}"
        fix = f"the labels are {', '.join(labels)}"
        raise BadInput(Problem("optim.class_weights", what, fix))
    return [float(optim.class_weights.get(label, 1.0)) for label in labels]
