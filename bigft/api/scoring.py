"""The scores of a run's model: what `bigft evaluate` prints."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bigft.api.given import unsettable
from bigft.api.submission import Submission
from bigft.config.draft import COMMAND_LINE
from bigft.config.errors import BadInput, Problem
from bigft.config.load import load_config
from bigft.runtime.clock import clock_of
from bigft.runtime.imports import importing
from bigft.runtime.run_directory import RunDirectory

if TYPE_CHECKING:
    from bigft.training.evaluate import Evaluation

SPLITS = ("train", "validation", "test")
SETTABLE = "data."
# Keys of data that say something of some splits only.
SPLITS_OF = {
    "data.train_file": ("train",),
    "data.max_train_samples": ("train",),
    "data.validation_file": ("validation",),
    "data.test_file": ("test",),
    "data.max_eval_samples": ("test", "validation"),
}


def evaluations(
    directory: RunDirectory,
    splits: Sequence[str],
    overrides: Sequence[str] = (),
    batch_size: int | None = None,
    given_by: str = COMMAND_LINE,
    predictions: Path | None = None,
) -> dict[str, Evaluation]:
    """By split of the run's config, the scores of the run's model.

    overrides: `data.key=value`, put over that config.  batch_size: rows of a forward; None: the
    run's.  given_by: what messages call the place of overrides.
    predictions: a file for the answers, as the official scorers of the task's data sets read them.
    Raises BadInput for overrides that would not be heeded, where there is no model or no split, and
    for `predictions` that cannot be written.
    """
    problems = unsettable(overrides, SETTABLE, "evaluate")
    problems += [
        Problem(word, "the run's tokenizer holds the template that it learnt", "leave it out")
        for word in overrides
        if word.startswith("data.chat_template=")
    ]
    problems += _of_other_splits(overrides, splits)
    if problems:
        raise BadInput(problems)
    submission = None
    if predictions is not None:
        directory.read()  # is it a run
        config = load_config(str(directory.config_file), overrides, given_by).config
        submission = Submission(predictions, config.task.name)
    with importing():
        from bigft.training.trained import Trained

    trained = Trained.load(directory, overrides, clock_of(directory), given_by)
    batch_size = batch_size or trained.config.train.per_device_eval_batch_size
    keep = partial(submission.add, trained.task) if submission else None
    found = {split: trained.evaluate(split, batch_size, keep) for split in splits}
    if submission:
        submission.write()
    return found


def _of_other_splits(overrides: Sequence[str], measured: Sequence[str]) -> list[Problem]:
    """The overrides that say something of splits that are not measured."""
    problems = []
    for word in overrides:
        key, _, value = word.partition("=")
        splits = SPLITS_OF.get(key, SPLITS)
        # null and [] make room for a data set.
        if not set(splits) & set(measured) and value not in ("null", "[]"):
            fix = f"leave it out, or give --split {splits[0]}"
            what = f"not read where --split is {' and '.join(measured)}"
            problems.append(Problem(word, what, fix))
    return problems
