"""Which evaluation is the best so far, and when those without a gain are too many."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from bigft.config.metric_names import is_greater_better
from bigft.config.sections import TrainConfig
from bigft.training.checkpoint.state import TrainerState


@dataclass(frozen=True, slots=True)
class Judge:
    """metric: the name of a score, without a split's prefix.  greater: whether more of it is
    better.  patience: evaluations without a gain that end the training; None: none do."""

    metric: str
    greater: bool
    patience: int | None = None

    @classmethod
    def of(cls, train: TrainConfig) -> Judge:
        metric = (train.metric_for_best_model or "loss").removeprefix("eval_")
        greater = train.greater_is_better
        if greater is None:
            greater = is_greater_better(metric)
        return cls(metric, greater, train.early_stopping_patience)

    def judge(self, scores: Mapping[str, float], state: TrainerState) -> bool:
        """Whether the scores of `state.step` are the best so far, which `state` remembers. A score
        that is NaN never is; one that is equal to the best is no gain."""
        score, best = scores[self.metric], state.best_metric
        is_best = not math.isnan(score) and (
            best is None or (score > best if self.greater else score < best)
        )
        if is_best:
            state.best_metric, state.best_step = score, state.step
            state.evaluations_without_gain = 0
        else:
            state.evaluations_without_gain += 1
        return is_best

    def gives_up(self, state: TrainerState) -> bool:
        """Whether as many evaluations in a row as `patience` says brought no gain."""
        return self.patience is not None and state.evaluations_without_gain >= self.patience
