"""The arguments of every verb that takes a config."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Sequence
from pathlib import Path

from bigft.config.errors import Problem
from bigft.config.load import LoadedConfig, load_config
from bigft.runtime.run_directory import RunDirectory


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


def unsettable(overrides: Sequence[str], prefix: str, verb: str) -> list[Problem]:
    """Of overrides of a run's config those that the verb does not heed: of other keys."""
    return [
        Problem(word, f"not what `bigft {verb}` can change", f"give {prefix}key=value")
        for word in overrides
        if not word.startswith(prefix)
    ]


def read_config(args: Namespace, quiet: bool = False) -> LoadedConfig:
    """The config that the arguments name; its notes go to stderr unless `quiet`.

    Raises BadInput with every problem there is.
    """
    file, overrides = args.config, args.overrides
    if file is not None and "=" in file and not Path(file).exists():
        file, overrides = None, [file, *overrides]  # no file: the overrides say it all
    elif file is not None and (of_run := RunDirectory(file)).run_file.is_file():
        file = str(of_run.config_file)
    loaded = load_config(file, overrides)
    if not quiet:
        for note in loaded.notes:
            print(f"note: {note}", file=sys.stderr)
    return loaded
