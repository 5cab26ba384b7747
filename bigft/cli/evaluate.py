"""`bigft evaluate RUN --split test`: the scores of a run's model on one of its splits, or on other
files."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path

from bigft.api.scoring import SETTABLE, SPLITS, evaluations
from bigft.cli.arguments import count
from bigft.runtime.events import strict_json
from bigft.runtime.run_directory import RunDirectory


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
        choices=SPLITS,
        default="test",
        help="which of the splits that the run's config names (test)",
    )
    parser.add_argument("--batch-size", type=count, metavar="N", help="rows of a forward")
    parser.add_argument(
        "--predictions",
        type=Path,
        metavar="FILE",
        help="write the answers there, as official scorers read them (question-answering: "
        "{id: answer})",
    )
    parser.add_argument("--json", action="store_true", help="print the scores as JSON only")


def run(args: Namespace) -> int:
    found = evaluations(
        RunDirectory(args.run),
        [args.split],
        args.overrides,
        args.batch_size,
        predictions=args.predictions,
    )
    evaluation = found[args.split]
    for note in evaluation.notes:
        print(f"note: {note}", file=sys.stderr)
    if not args.json:
        print(evaluation.report, end="\n\n")
    print(strict_json(evaluation.scores, indent=2))
    return 0
