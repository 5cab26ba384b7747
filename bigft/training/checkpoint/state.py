"""trainer.json: what the loop needs to go on besides the engine."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

from bigft.config.errors import BadInput, Problem
from bigft.training.checkpoint.manifest import STATE


@dataclass(slots=True)
class TrainerState:
    """The loop's own numbers: everything else is a function of the step.

    step: optimizer steps done.  world_size: of the run that saved.
    best_metric, best_step: of metric_for_best_model so far; None before the first evaluation.
    judged_by: that metric, its direction and the data it is measured on.
    evaluations_without_gain: for early stopping.
    loss_sums, since the last log line, by rank: fp64, so that the next line has the same bits.
    window_*: since the last log line; total_*, training_seconds, skipped_steps: up to it.
    nonfinite_steps, nonfinite_in_a_row: skipped for a loss or gradient that was not finite.
    failed_saves: checkpoints that could not be written; save_seconds: of the slowest so far.
    evaluation_due: the step's evaluation was not done when this was saved.
    fused_head: whether the fused head trained.  frozen: a digest of the weights that did not.
    """

    step: int = 0
    world_size: int = 1
    best_metric: float | None = None
    best_step: int | None = None
    judged_by: str = ""
    evaluations_without_gain: int = 0
    loss_sums: list[float] = field(default_factory=list)
    window_targets: float = 0.0
    window_tokens: int = 0
    window_seconds: float = 0.0
    total_loss: float = 0.0
    total_targets: float = 0.0
    total_tokens: int = 0
    training_seconds: float = 0.0
    skipped_steps: int = 0
    nonfinite_steps: int = 0
    nonfinite_in_a_row: int = 0
    failed_saves: int = 0
    save_seconds: float = 0.0
    evaluation_due: bool = False
    fused_head: bool | None = None
    frozen: str = ""

    @property
    def text(self) -> str:
        return json.dumps(asdict(self), indent=2) + "\n"

    @classmethod
    def read(cls, checkpoint: Path) -> TrainerState:
        """Raises BadInput if the directory is no checkpoint of bigft's."""
        try:
            return cls(**json.loads((checkpoint / STATE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            what = f"{checkpoint} is not a checkpoint of bigft ({error})"
            fix = "name a checkpoint-<step> directory, or `true` for the newest"
            raise BadInput(Problem("train.resume_from_checkpoint", what, fix)) from error
