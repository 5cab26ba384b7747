"""`bigft export RUN [--merge] [--output DIR] [--dtype ...]`: a run's model for other tools."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from bigft.config.errors import BadInput, Problem
from bigft.runtime.imports import importing
from bigft.runtime.run_directory import RunDirectory


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="a run directory (train.output_dir)")
    parser.add_argument(
        "--merge",
        action="store_true",
        help="merge the adapter into its base, and measure before and after",
    )
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="a new directory (with --merge: RUN/merged)"
    )
    parser.add_argument(
        "--dtype",
        choices=("bfloat16", "float16", "float32"),
        help="of the weights (default: as the run computed)",
    )


def run(args: Namespace) -> int:
    with importing():
        from bigft.training.merge import export_copy, export_merged

    if args.output is None and not args.merge:
        problem = Problem("--output", "not given", "name the directory to write, or add --merge")
        raise BadInput(problem)
    directory, output = RunDirectory(args.run), args.output or args.run / "merged"
    if args.merge:
        print(export_merged(directory, output, args.dtype))
    else:
        export_copy(directory, output, args.dtype)
    print(f"written: {output}")
    return 0
