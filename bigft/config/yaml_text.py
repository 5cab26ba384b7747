"""YAML text to plain values with the place of each, and back; never Python objects.

Booleans, numbers and null are those of YAML 1.2: `1e-4` is a number, `no` and `off` are text
(`eval_strategy: no`).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar

import yaml

from bigft.config.errors import BadInput, Problem

MAX_DEPTH = 50  # far more than any section has, far less than Python's stack

KeyPath = tuple[str | int, ...]

_NULL = re.compile(r"^(?:~|null|Null|NULL|)$")
_BOOL = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
_INT = re.compile(r"^[-+]?[0-9]{1,4000}$")  # more digits are a float: int() refuses 4,301
_FLOAT = re.compile(r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$")
_RESOLVERS = [
    ("tag:yaml.org,2002:null", _NULL, ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:bool", _BOOL, list("tTfF")),
    ("tag:yaml.org,2002:int", _INT, list("-+0123456789")),
    ("tag:yaml.org,2002:float", _FLOAT, list("-+.0123456789")),
]
_CONVERT: dict[str, Callable[[str], Any]] = {
    "tag:yaml.org,2002:null": lambda text: None,
    "tag:yaml.org,2002:bool": lambda text: text.lower() == "true",
    "tag:yaml.org,2002:int": int,
    "tag:yaml.org,2002:float": float,
    "tag:yaml.org,2002:str": str,
}


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}
    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """Plain nodes only: a tag could name a Python object, an alias could grow without end."""
        event = self.peek_event()
        if getattr(event, "tag", None) is not None:
            refused = f"the tag {event.tag} is not read, only plain values are"
        elif getattr(event, "anchor", None) is not None:
            refused = f"the anchor or alias {event.anchor} is not read; write the value out"
        elif self.depth == MAX_DEPTH:
            refused = "nested too deeply"
        else:
            self.depth += 1
            node: yaml.Node | None = super().compose_node(parent, index)
            self.depth -= 1
            return node
        raise yaml.MarkedYAMLError(problem=refused, problem_mark=event.start_mark)


class _Dumper(yaml.SafeDumper):
    """Quotes what either version of YAML would take for something other than text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_str(self, data: str) -> yaml.ScalarNode:
        # PyYAML leaves line ends bare in other styles; Unicode's come back as spaces.
        style = '"' if re.search("[\n\x85\u2028\u2029]", data) else None
        return self.represent_scalar("tag:yaml.org,2002:str", data, style)


_Dumper.add_representer(str, _Dumper.represent_str)


for _class in (_Loader, _Dumper):
    for _tag, _pattern, _first in _RESOLVERS:
        _class.add_implicit_resolver(_tag, _pattern, _first)


@dataclass
class _Reader:
    """locate: line -> what a message calls it.  where: path of keys -> the same, with the key."""

    locate: Callable[[int], str]
    problems: list[Problem]
    where: dict[KeyPath, str] = field(default_factory=dict)

    def read(self, node: yaml.Node, path: KeyPath) -> Any:
        if isinstance(node, yaml.ScalarNode):
            return _CONVERT[node.tag](node.value)
        if isinstance(node, yaml.SequenceNode):
            return [self._child(item, item, (*path, at)) for at, item in enumerate(node.value)]
        values: dict[str, Any] = {}
        lines: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = _line(key_node.start_mark)
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(Problem(self.locate(line), "a key that is not text"))
                continue
            key = key_node.value  # as it is written: a label `1` or `no` is text here
            if key in lines:
                what = f"given twice, in lines {lines[key]} and {line}"
                where = f"{self.locate(line)}: {dotted((*path, key))}"
                self.problems.append(Problem(where, what, "remove one"))
                continue
            lines[key] = line
            values[key] = self._child(key_node, value_node, (*path, key))
        return values

    def _child(self, place: yaml.Node, node: yaml.Node, path: KeyPath) -> Any:
        self.where[path] = f"{self.locate(_line(place.start_mark))}: {dotted(path)}"
        return self.read(node, path)


def dotted(path: KeyPath) -> str:
    return ".".join(map(str, path))


def parse(
    text: str, locate: Callable[[int], str], problems: list[Problem]
) -> tuple[Any, dict[KeyPath, str]]:
    """The value of one YAML document, and what messages call the place of each of its keys.

    locate: 1-based line -> what messages call it ("config.yaml:3").
    problems: keys given twice and the like are appended; the value then lacks them.
    Raises BadInput where the text is no YAML.
    """
    reader = _Reader(locate, problems)
    try:
        node = yaml.compose(text, Loader=_Loader)
        return (None if node is None else reader.read(node, ())), reader.where
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        what = f"the character U+{ord(text[error.position]):04X} may not stand in YAML"
    except yaml.MarkedYAMLError as error:
        line = _line(error.problem_mark or error.context_mark)
        what = ", ".join(filter(None, [error.context, error.problem]))
    raise BadInput(Problem(locate(line), what))


def _line(mark: Any) -> int:
    return int(mark.line) + 1


def dump(values: Any) -> str:
    """YAML text that parse() reads as the same values."""
    text = yaml.dump(values, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)
    return str(text)


def one_line(value: Any) -> str:
    """The same without a line break, for a message or a command line."""
    options: dict[str, Any] = {"sort_keys": False, "allow_unicode": True, "width": sys.maxsize}
    text = yaml.dump([value], Dumper=_Dumper, default_flow_style=True, **options)
    return str(text).strip()[1:-1]
