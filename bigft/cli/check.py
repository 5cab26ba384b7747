"""`bigft check CONFIG [section.key=value ...]`: all that `bigft train` would refuse, and a summary.

No accelerator is touched: it may run on a machine that has none.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from typing import TYPE_CHECKING

from bigft.cli.arguments import add_config_arguments, count, read_config
from bigft.config.errors import BadInput, Problem, collect
from bigft.config.sections import RunConfig
from bigft.runtime.imports import importing
from bigft.runtime.launcher import Launch, free_port
from bigft.runtime.run_directory import RunDirectory

if TYPE_CHECKING:
    from rich.text import Text

SAMPLES = 2


def add_arguments(parser: ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument(
        "--nproc", type=count, default=1, metavar="N", help="ranks that the run will have (1)"
    )
    parser.add_argument(
        "--nodes", type=count, default=1, metavar="N", help="nodes that share these ranks (1)"
    )


def run(args: Namespace) -> int:
    # A run on several nodes is not this machine's alone, if it is one of them at all.
    return show(args, elsewhere=args.nodes > 1)


def show(args: Namespace, elsewhere: bool) -> int:
    """Prints what the run would do.

    elsewhere: the ranks may be on other machines: what this one lacks is noted, not refused.
    """
    loaded = read_config(args)
    train, taken = loaded.config.train, list[Problem]()
    with loaded.located():
        with collect(taken):
            RunDirectory(train.output_dir).check(resume=train.resume_from_checkpoint)
        try:
            lines = describe(loaded.config, args.nproc, args.nodes, sys.stdout.isatty(), elsewhere)
        except BadInput as refused:
            raise BadInput([*taken, *refused.problems]) from refused
        from rich.console import Console

        console = Console(highlight=False, markup=False, soft_wrap=True)
        for line in lines[: -1 if taken else None]:  # also of a run that is there already
            console.print(line)
        if taken:
            raise BadInput(taken)
    return 0


def describe(
    config: RunConfig, nproc: int, nodes: int, coloured: bool, elsewhere: bool
) -> list[str | Text]:
    """What the run would do on so many ranks in all, a line each. Raises BadInput if it would be
    refused."""
    with importing():
        from bigft.cli.preview import examples, histogram, samples
        from bigft.runtime.machine import check_accelerators
        from bigft.training.batch import global_batch
        from bigft.training.preflight import preflight

    on_each = -(-nproc // nodes)
    launch = Launch(0, 0, nproc, on_each, "127.0.0.1", free_port(), "environment")
    lacking: list[Problem] = []
    if elsewhere:
        with collect(lacking):
            check_accelerators(config.train, launch)
    prepared = preflight(config, launch, here=not elsewhere, begins=False)
    lines: list[str | Text] = []
    for name, split in prepared.splits.items():
        unit = prepared.task.unit
        lines.append(
            f"{name}: {split.num_records:,} records, {len(split):,} rows, "
            f"{split.lengths.sum():,} {unit} (longest {split.lengths.max()}), "
            f"{prepared.task.targets(split)}"
        )
        for side, lengths in prepared.task.sides(split).items():
            lines.append(f"  {unit} of a {side}:")
            lines += histogram(lengths)
        if lost := int(split.lost_targets.sum()):
            share = lost / (lost + int(split.num_targets.sum()))
            lines.append(f"  truncation costs {lost:,} targets ({share:.1%})")
    train = prepared.splits["train"]
    shown = [train.row(row) for row in range(min(SAMPLES, len(train)))]
    how = "coloured" if coloured else "between \u27e6 and \u27e7"
    lines.append(f"the first rows of train, targets {how}:")
    lines += samples(prepared.task, shown, coloured)
    lines += examples(prepared.task, train)
    batch = global_batch(config, nproc)
    total = prepared.order(batch).total_steps(config.train.num_train_epochs, config.train.max_steps)
    ((unit, size),) = batch.items()
    unit = {"global_batch_size": "samples", "global_batch_tokens": "padded tokens"}[unit]
    lines.append(f"{total:,} steps of {size:,} {unit}, ranks: {nproc}")
    lines += [f"note: {note}" for note in prepared.notes]
    lines += [f"note: refused on this machine: {problem}" for problem in lacking]
    return [*lines, "ok, but not on this machine" if lacking else "ok"]
