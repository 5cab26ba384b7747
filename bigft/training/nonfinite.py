"""What follows from a step whose loss or gradient was not finite: it has changed nothing."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

from bigft.data.records import Batch
from bigft.data.split import PreparedSplit
from bigft.models.layers import nonfinite_weights
from bigft.ops import native
from bigft.runtime.events import EventStream
from bigft.runtime.process_group import World
from bigft.training.checkpoint.state import TrainerState
from bigft.training.step import StepDone


class TrainingFailed(RuntimeError):
    """The run cannot go on, and would fail again; the last checkpoint is intact. str() says why and
    what was seen."""


def skip_step(
    done: StepDone,
    model: Any,
    batches: Sequence[Batch],
    split: PreparedSplit,
    state: TrainerState,
    max_in_a_row: int,
    world: World,
    events: EventStream,
) -> None:
    """Counts the step as skipped and names the samples that may be the cause. Collective.

    model: as it was in the step.  split, batches: what that was made from.
    max_in_a_row: train.max_nonfinite_steps.
    Raises TrainingFailed for as many in a row, for a label that is no class of the model, and where
    the model's weights are the cause.
    """
    step = state.step + 1  # as log lines count
    if bad_weights := sorted({*chain(*world.gather(nonfinite_weights(model, world.rank)))}):
        more = f" and {len(bad_weights) - 1} more" if len(bad_weights) > 1 else ""
        raise TrainingFailed(
            f"step {step}: weights of the model hold NaN or an infinity ({bad_weights[0]}{more}): "
            "no sample is the cause. Restore the files of model.model_name_or_path, or go on from "
            "an earlier checkpoint"
        )
    state.nonfinite_steps += 1
    state.nonfinite_in_a_row += 1
    samples = suspects(world, split, batches, done)
    events.emit(
        "nonfinite",
        step=step,
        what=done.nonfinite,
        samples=samples,
        in_a_row=state.nonfinite_in_a_row,
    )
    if bad_labels := [text for text in world.gather(_bad_labels(world)) if text]:
        raise TrainingFailed(f"step {step}: {bad_labels[0]}")
    if state.nonfinite_in_a_row >= max_in_a_row:
        raise TrainingFailed(
            f"the {done.nonfinite} is not finite in step {step}, which makes "
            f"{state.nonfinite_in_a_row} in a row (train.max_nonfinite_steps); samples: "
            f"{', '.join(samples[:8])}. Look at them, or lower optim.learning_rate and branch "
            "off: train.resume_from_checkpoint=CHECKPOINT with another train.output_dir"
        )


def suspects(
    world: World, split: PreparedSplit, batches: Sequence[Batch], done: StepDone
) -> list[str]:
    """ "file:line" of the samples that may have made the step not finite, of all ranks. Collective.

    split, batches: what the step was made from.
    """
    records = {
        sample.record
        for micro_step in done.suspects
        for row in batches[micro_step].rows
        for sample in row.samples
    }
    gathered = world.gather([split.record(index).where for index in sorted(records)])
    return [*dict.fromkeys(where for mine in gathered for where in mine)]


def _bad_labels(world: World) -> str:
    """What kernels on this rank's device have seen; on a CPU they raise by themselves."""
    try:
        native.check_labels(world.device)
    except IndexError as error:
        return str(error)
    return ""
