"""The arguments of every verb that takes a config."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from pathlib import Path

from bigft.api.given import config_file
from bigft.config.load import LoadedConfig, load_config


def count(text: str) -> int:
    """The type of an argument that counts something: 1 or more."""
    if not text.isdecimal() or int(text) == 0:
        raise ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def add_config_arguments(parser: ArgumentParser) -> None:
    """CONFIG and overrides; `read_config` reads them."""
    parser.add_argument(
        "config",
        nargs="?",
        metavar="CONFIG",
        help="the YAML file; of a run directory its config.yaml",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="section.key=value", help="put over the file's values"
    )


def read_config(args: Namespace, quiet: bool = False) -> LoadedConfig:
    """The config that the arguments name; its notes go to stderr unless `quiet`.

    Raises BadInput with every problem there is.
    """
    file, overrides = args.config, args.overrides
    if file is not None and "=" in file and not Path(file).exists():
        file, overrides = None, [file, *overrides]  # no file: the overrides say it all
    elif file is not None:
        file = config_file(file)
    loaded = load_config(file, overrides)
    if not quiet:
        for note in loaded.notes:
            print(f"note: {note}", file=sys.stderr)
    return loaded
