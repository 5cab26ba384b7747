"""`bigft evaluate RUN --split test`: the scores of a run's model on one of its splits, or on other
files."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from pathlib import Path

from bigft.cli.arguments import count, unsettable
from bigft.config.errors import BadInput, Problem
from bigft.runtime.clock import clock_of
from bigft.runtime.run_directory import RunDirectory

SETTABLE = "data."
# Keys of data that say something of some splits only.
SPLITS_OF = {
    "data.train_file": ("train",),
    "data.max_train_samples": ("train",),
    "data.validation_file": ("validation",),
    "data.test_file": ("test",),
    "data.max_eval_samples": ("test", "validation"),
}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="a run directory (train.output_dir)")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar=f"{SETTABLE}key=value",
        help="put over the run's config (test_file, format, max_eval_samples, ...)",
    )
    parser.add_argument(
        "--split",
        choices=("train", "validation", "test"),
        default="test",
        help="which of the splits that the run's config names (test)",
    )
    parser.add_argument("--batch-size", type=count, metavar="N", help="rows of a forward")
    parser.add_argument("--json", action="store_true", help="print the scores as JSON only")


def run(args: Namespace) -> int:
    problems = unsettable(args.overrides, SETTABLE, "evaluate")
    problems += [
        Problem(word, "the run's tokenizer holds the template that it learnt", "leave it out")
        for word in args.overrides
        if word.startswith("data.chat_template=")
    ]
    problems += _of_other_splits(args.overrides, args.split)
    if problems:
        raise BadInput(problems)
    from bigft.training.trained import Trained

    directory = RunDirectory(args.run)
    trained = Trained.load(directory, args.overrides, clock_of(directory))
    batch_size = args.batch_size or trained.config.train.per_device_eval_batch_size
    evaluation = trained.evaluate(args.split, batch_size)
    for note in evaluation.notes:
        print(f"note: {note}", file=sys.stderr)
    if not args.json:
        print(evaluation.report, end="\n\n")
    print(json.dumps(evaluation.scores, indent=2))
    return 0


def _of_other_splits(overrides: Sequence[str], split: str) -> list[Problem]:
    """The overrides that say something of splits that are not measured."""
    problems = []
    for word in overrides:
        key, _, value = word.partition("=")
        splits = SPLITS_OF.get(key, (split,))
        if split not in splits and value not in ("null", "[]"):  # which make room for a data set
            fix = f"leave it out, or give --split {splits[0]}"
            problems.append(Problem(word, f"not read where --split is {split}", fix))
    return problems
