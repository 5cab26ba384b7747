"""What a file and the command line say, put together before any value is checked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bigft.config.errors import BadInput, Problem
from bigft.config.keys import resolve_alias
from bigft.config.sections import RunConfig
from bigft.config.yaml_text import KeyPath, dotted, parse

COMMAND_LINE = "command line"


@dataclass
class Draft:
    """values: plain values under their real keys.  places: what messages call the place of each.

    problems: what was wrong on the way.  notes: keys that were given by another name.
    given_by: what messages call the place of overrides.
    """

    source: str
    given_by: str = COMMAND_LINE
    values: dict[str, Any] = field(default_factory=dict)
    places: dict[KeyPath, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def where(self, path: KeyPath) -> str:
        """What messages call a key: `config.yaml:3: optim.learning_rate`; no line if not given."""
        return self.places.get(path, f"{self.source}: {dotted(path)}")

    def read_file(self, name: str) -> None:
        """Raises BadInput if the file cannot be read as YAML."""
        tree, places = parse(_text(name), lambda line: f"{name}:{line}", self.problems)
        if tree is None:
            return
        if not isinstance(tree, dict):
            sections = ", ".join(RunConfig.model_fields)
            raise BadInput(Problem(name, "does not hold sections", f"they are {sections}"))
        for top, content in tree.items():
            for path, value in _entries((top,), content):
                place = places.get(path, places[path[:1]])
                real = resolve_alias(path)
                if real in self.places:
                    what = f"the same key as {self.places[real]}"
                    self.problems.append(Problem(place, what, "remove one"))
                    continue
                self._put(path, value, place)
                for inner in places:
                    if inner[: len(path)] == path and inner != path:
                        self.places[(*real, *inner[len(path) :])] = places[inner]

    def override(self, text: str) -> None:
        """Puts `section.key=value` over what is there; the value is YAML."""
        place = f"{self.given_by}: {text}"
        key, equals, value_text = text.partition("=")
        path: KeyPath = tuple(key.split("."))
        if not equals or not all(path):
            fix = "write optim.learning_rate=3e-5, for example"
            self.problems.append(Problem(place, "not section.key=value", fix))
            return
        try:
            value, _ = parse(value_text, lambda line: place, self.problems)
        except BadInput as error:
            self.problems.extend(error.problems)
            return
        for at, part in _entries(path, value):
            self._put(at, part, place)

    def _put(self, path: KeyPath, value: Any, place: str) -> None:
        real = resolve_alias(path)
        if real != path:
            self.notes.append(f"{place}: read as {dotted(real)}")
        if path[-1] == "warmup_ratio" and isinstance(value, int | float) and value >= 1:
            fix = "optim.warmup_steps takes a number of steps"
            self.problems.append(Problem(place, f"found {value}, but a ratio is below 1", fix))
        *outer, leaf = real
        node: Any = self.values
        for depth, key in enumerate(outer, start=1):
            if node.get(key) is None:
                node[key] = {}
            node = node[key]
            if not isinstance(node, dict):
                what = f"{dotted(real[:depth])} is no mapping"
                self.problems.append(Problem(place, what, f"see {self.where(real[:depth])}"))
                return
        node[leaf] = value
        for inner in [at for at in self.places if at[: len(real)] == real]:
            del self.places[inner]
        self.places[real] = place


def _entries(path: KeyPath, value: Any) -> Iterator[tuple[KeyPath, Any]]:
    """A whole section key by key; anything else as it is."""
    if path == ("task",) and isinstance(value, str):
        yield ("task", "name"), value
    elif len(path) == 1 and path[0] in RunConfig.model_fields and isinstance(value, dict):
        yield from (((*path, key), inner) for key, inner in value.items())
    elif not (len(path) == 1 and value is None):  # a section whose keys are all commented out
        yield path, value


def _text(name: str) -> str:
    try:
        data = Path(name).read_bytes()
    except OSError as error:
        raise BadInput(Problem(name, f"cannot be read: {error.strerror}")) from error
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        what = f"byte 0x{data[error.start]:02X} is not UTF-8"
        raise BadInput(Problem(f"{name}:{line}", what, "save the file as UTF-8")) from error
