"""`bigft check CONFIG [section.key=value ...]`: config, data, tokenizer; no accelerator touched."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from bigft.cli.arguments import add_config_arguments, read_config
from bigft.config.deepspeed import deepspeed_config
from bigft.config.load import check_batch
from bigft.config.sections import RunConfig


def add_arguments(parser: ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument(
        "--nproc", type=int, default=1, metavar="N", help="ranks that the run will have (1)"
    )


def run(args: Namespace) -> int:
    config = read_config(args)
    check_batch(config, args.nproc)
    deepspeed_config(config, args.nproc)
    print("\n".join(describe(config, args.nproc)))
    return 0


def describe(config: RunConfig, nproc: int) -> list[str]:
    """What the run would do, a line each. Raises BadInput if data or tokenizer are refused."""
    from bigft.training.build import global_batch, prepare

    prepared = prepare(config)
    lines = []
    for name, split in prepared.splits.items():
        lines.append(
            f"{name}: {split.num_records:,} records, {len(split):,} rows, "
            f"{split.lengths.sum():,} tokens (longest {split.lengths.max()}), "
            f"{split.num_targets.sum():,} targets"
        )
    if prepared.task.labels:
        lines.append(f"labels: {', '.join(prepared.task.labels)}")
    batch = global_batch(config, nproc)
    total = prepared.order(batch).total_steps(config.train.num_train_epochs, config.train.max_steps)
    ((unit, size),) = batch.items()
    unit = {"global_batch_size": "samples", "global_batch_tokens": "padded tokens"}[unit]
    lines.append(f"{total:,} steps of {size:,} {unit}, ranks: {nproc}")
    lines += [f"note: {note}" for note in prepared.notes]
    return [*lines, "ok"]
