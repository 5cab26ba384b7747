"""Labels of the data as classes of a model: their names, and what a target of each weighs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bigft.config.errors import BadInput, Problem
from bigft.config.optim import OptimConfig


def names_by_id(labels: Sequence[str]) -> dict[str, Any]:
    """What a model's config says of the names of its classes."""
    return {
        "id2label": dict(enumerate(labels)),
        "label2id": {label: number for number, label in enumerate(labels)},
    }


@dataclass(frozen=True, slots=True)
class Classes:
    """names: by id.

    counts: targets of the training set by id; () where they are not known, as of a model whose run
        is gone.
    """

    names: Sequence[str]
    counts: Sequence[int]
    optim: OptimConfig

    @property
    def options(self) -> dict[str, Any]:
        """What the model's config must say, so that weights are known where the model alone is."""
        is_balanced = self.optim.class_weights == "balanced" and self.counts
        return names_by_id(self.names) | ({"label_counts": self.counts} if is_balanced else {})

    @property
    def weights(self) -> list[float] | None:
        """What a target of each label weighs, by id; None: 1.

        balanced: all targets / (labels with a target * targets of the label), as scikit-learn has
        it. Raises BadInput for a label that is none.
        """
        by_label = self.optim.class_weights
        if by_label is None:
            return None
        if by_label == "balanced":
            seen, total = sum(count > 0 for count in self.counts), sum(self.counts)
            return [total / (seen * count) if count else 1.0 for count in self.counts] or None
        if unknown := sorted(set(by_label) - set(self.names)):
            what = f"no label {', '.join(map(repr, unknown))}"
            fix = f"the labels are {', '.join(self.names)}"
            raise BadInput(Problem("optim.class_weights", what, fix))
        return [float(by_label.get(label, 1.0)) for label in self.names]

    @property
    def largest_weight(self) -> float:
        """At least 1."""
        return max([1.0, *(self.weights or [])])
