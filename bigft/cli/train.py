"""`bigft train CONFIG [section.key=value ...]`: fine-tunes, on a launcher's ranks or on its own."""

from __future__ import annotations

import os
import time
from argparse import SUPPRESS, ArgumentParser, Namespace

from bigft.api.session import STARTED, is_finished, run_session
from bigft.cli.arguments import add_config_arguments, count, read_config
from bigft.config.errors import BadInput
from bigft.config.exit_codes import EXIT_BAD_INPUT
from bigft.runtime import environment
from bigft.runtime.launcher import detect


def add_arguments(parser: ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument(
        "--nproc",
        type=count,
        metavar="N",
        help="ranks to start on this machine (default: one per GPU, one on a CPU)",
    )
    # The deepspeed launcher gives it to every rank; the environment says the same.
    parser.add_argument("--local_rank", "--local-rank", type=int, help=SUPPRESS)


def run(args: Namespace) -> int:
    os.umask(os.umask(0o077) | 0o002)  # nothing of a run is for anyone to write
    os.environ.setdefault(STARTED, str(time.monotonic()))  # one clock for a parent and its ranks
    try:
        return _train_as_launched(args)
    finally:
        os.environ.pop(STARTED, None)  # a later run of this process has a clock of its own


def _train_as_launched(args: Namespace) -> int:
    launch = detect(os.environ, args.nproc)
    settings = environment.process_settings(os.environ)
    if launch is None or launch.world_size == 1:
        settings.pop("TOKENIZERS_PARALLELISM", None)  # nobody else wants the cores
    if launch is not None or args.nproc in (None, 1):  # else this process computes nothing
        environment.reexec_with(settings)  # before anything is read, or imported, twice
    told = environment.PARENT in os.environ or (launch is not None and launch.rank > 0)
    loaded = read_config(args, quiet=told)
    words = [word for word in (args.config, *args.overrides) if word is not None]
    with loaded.located():
        if is_finished(loaded.config):
            if launch is None or launch.rank == 0:
                output_dir = loaded.config.train.output_dir
                print(f"{output_dir} is finished: nothing is left to train")
            return 0
        started = float(os.environ[STARTED])
        end = run_session(loaded.config, words, launch, args.nproc, started)
        # What was refused, but could not be recorded, has been told with the reason for that.
        untold = isinstance(end.error, BadInput) and end.code != EXIT_BAD_INPUT
        if end.error is not None and not untold:
            raise end.error
    return end.code
