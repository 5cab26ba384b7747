"""A config given as Python values, in the words of the command line."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from numbers import Integral, Real
from typing import Any

from bigft.config.errors import BadInput, Problem
from bigft.config.sections import RunConfig
from bigft.config.yaml_text import one_line


def words_of(values: Mapping[str, Any], given_to: str) -> list[str]:
    """`section.key=value`, the value in YAML, of `{"section": {"key": value}}` as in a config file,
    or of `{"section.key": value}`.

    given_to: what messages call it.
    Raises BadInput naming each value that YAML has no form for.
    """
    words: list[str] = []
    problems: list[Problem] = []
    for key, value in _entries(values):
        try:
            words.append(f"{key}={one_line(_plain(value))}")
        except TypeError as error:
            fix = "give text, numbers, booleans, None, lists or mappings"
            problems.append(Problem(f"{given_to}: {key}", f"found {error}", fix))
    if problems:
        raise BadInput(problems)
    return words


def _entries(values: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if key in RunConfig.model_fields and isinstance(value, Mapping):
            yield from ((f"{key}.{inner}", each) for inner, each in value.items())
        else:
            yield key, value


def _plain(value: Any) -> Any:
    """The value as YAML has it: paths as text, numpy's numbers as Python's, tuples as lists."""
    match value:
        case None | bool():
            return value
        case str():
            return str.__str__(value)  # of an Enum its value
        case os.PathLike():
            return os.fspath(value)
        case Integral():
            return int(value)
        case Real():
            return float(value)
        case Mapping():
            return {str(key): _plain(each) for key, each in value.items()}
        case list() | tuple():
            return [_plain(each) for each in value]
    raise TypeError(f"{value!r} of type {type(value).__name__}")
