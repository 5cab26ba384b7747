"""What verbs and functions are given: configs, runs, and what may be put over them."""

from __future__ import annotations

from collections.abc import Sequence

from bigft.config.errors import Problem
from bigft.runtime.run_directory import RunDirectory


def config_file(name: str) -> str:
    """The file that holds the config: of a run directory its config.yaml."""
    directory = RunDirectory(name)
    return str(directory.config_file) if directory.run_file.is_file() else name


def unsettable(overrides: Sequence[str], prefix: str, verb: str) -> list[Problem]:
    """Of overrides of a run's config those that the verb does not heed: of other keys."""
    return [
        Problem(word, f"not what `bigft {verb}` can change", f"give {prefix}key=value")
        for word in overrides
        if not word.startswith(prefix)
    ]
