"""`bigft node CONFIG [section.key=value ...]`: whether a job's nodes can train together.

slurm/finetune.sh starts it once on each node before training; started by hand it looks at this
machine alone.
"""

from __future__ import annotations

import hashlib
import os
import socket
from argparse import ArgumentParser, Namespace
from pathlib import Path

from bigft.cli.arguments import add_config_arguments, count, read_config
from bigft.config.errors import BadInput
from bigft.config.exit_codes import EXIT_BAD_INPUT
from bigft.config.load import resolved_yaml
from bigft.runtime.launcher import Launch, detect
from bigft.runtime.run_directory import RunDirectory

HOSTS = "BIGFT_HOSTS"  # the nodes' names, by rank: what `scontrol show hostnames` prints
SECONDS = 180


def add_arguments(parser: ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument(
        "--timeout",
        type=count,
        default=SECONDS,
        metavar="SECONDS",
        help=f"how long nodes wait for each other ({SECONDS})",
    )


def run(args: Namespace) -> int:
    alone = Launch.local(1)
    launch = detect(os.environ) or alone
    config_hash, directory, wrong = "", Path(), ""
    try:
        config = read_config(args, quiet=True).config
        config_hash = hashlib.sha256(resolved_yaml(config).encode()).hexdigest()[:12]
        directory = RunDirectory(config.train.output_dir).nearest()
    except BadInput as refused:
        wrong = str(refused)  # told with this node's name, to nodes that read it
    from bigft.runtime.nodes import Unfit, examine

    names = os.environ.get(HOSTS, "").split()
    if len(names) != launch.world_size:
        names = [f"node {rank}" for rank in range(launch.world_size)]
        names[launch.rank] = socket.gethostname()
    try:
        alike = examine(launch, names, config_hash, directory, args.timeout, wrong)
    except Unfit:
        if launch.rank == 0:
            raise
        return EXIT_BAD_INPUT
    if launch.rank == 0:
        facts = ", ".join(f"{name} {value}" for name, value in alike.items())
        print(f"{', '.join(names)}: ready ({facts})")
    return 0
