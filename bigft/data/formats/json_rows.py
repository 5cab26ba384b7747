"""JSON: an array of objects, or an object with such an array under "data"; JSON Lines."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from bigft.config.errors import BadInput, Problem
from bigft.data.formats.base import RawRow, ReadOptions, text_lines
from bigft.data.formats.json_positions import Lines, elements, skip_space, values_of

MAX_DEPTH = 500  # of brackets; Python's own limit is some 1,000 for all that recurses
ROWS_KEY = "data"  # SQuAD's, and what many exporters write
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
JSON_ARRAY = re.compile(r"\s*\[\s*([{\]\[]|$)")
OPEN_OBJECT = re.compile(r"\s*\{\s*")
KINDS = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}


class NoJson(ValueError):
    """What is wrong with a JSON text, and how to fix it. column: 1-based; None: of no one place."""

    def __init__(self, what: str, fix: str, column: int | None = None) -> None:
        super().__init__(what, fix)
        self.what, self.fix, self.column = what, fix, column

    def at(self, where: str) -> Problem:
        place = where if self.column is None else f"{where}:{self.column}"
        return Problem(place, self.what, self.fix)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        repeated, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        found = f"the key {repeated!r} stands twice in one object"
        raise NoJson(found, "rename or delete one of the two")
    return fields


DECODER = json.JSONDecoder(object_pairs_hook=_object)


def parse(text: str, fix: str = "") -> Any:
    """The value of a JSON text.

    fix: what to write instead of what is no JSON.
    Raises NoJson for that, for a key that stands twice in an object, for half of a surrogate pair,
    and for brackets deeper than MAX_DEPTH: what handles a value later recurses too.
    """
    try:
        value = DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise NoJson(f"no JSON ({error.msg})", fix, error.colno) from error
    except RecursionError as error:
        raise _too_deep() from error
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise _too_deep()
    if half_of_a_pair(text, value):
        found = "one half of a surrogate pair (\\ud800 to \\udfff): no character"
        raise NoJson(found, "cut texts between characters")
    return value


def _too_deep() -> NoJson:
    return NoJson(f"brackets within brackets, more than {MAX_DEPTH} deep", "write it flatter")


def _depth(value: Any) -> int:
    """How many brackets stand around the innermost value; without recursion."""
    depth, level = 0, [value]
    while level := [each for each in level if isinstance(each, list | dict)]:
        depth += 1
        level = [
            inner for each in level for inner in (each.values() if isinstance(each, dict) else each)
        ]
    return depth


def read_jsonl(path: str, options: ReadOptions) -> Iterator[RawRow | Problem]:
    """One object a line; blank lines are passed over."""
    is_first = True
    for item in text_lines(path):
        if isinstance(item, Problem):
            yield item
        elif item[1].strip():
            number, line = item
            if is_first and (problem := _over_lines(f"{path}:{number}", line)):
                raise BadInput(problem)
            is_first = False
            yield _row_or_problem(path, number, line)


def _over_lines(where: str, first: str) -> Problem | None:
    """Of JSON that is no JSON Lines, by its first line: the lines are not worth a problem each."""
    if JSON_ARRAY.match(first):
        return Problem(where, "a JSON array, not an object a line", "set data.format=json")
    if OPEN_OBJECT.fullmatch(first):
        fix = "write each object in one line (`jq -c . FILE`)"
        return Problem(where, "an object over several lines", fix)
    return None


def read_json(path: str, options: ReadOptions) -> Iterator[RawRow | Problem]:
    """The objects of the array, each with the line that it begins in."""
    text, document = read_whole(path, "write one JSON array")
    array = skip_space(text, 0)
    if not isinstance(document, list):
        array = rows_array(path, text, document, options.key or ROWS_KEY)
    lines = Lines(text)
    for start, end in elements(text, array):
        yield _row_or_problem(path, lines.at(start), text[start:end])


def read_whole(path: str, fix: str) -> tuple[str, Any]:
    """The text of a JSON file, and its value: the whole file is sound before a row is given out.

    fix: what to write instead of what is no JSON. Raises BadInput.
    """
    lines = list(text_lines(path))
    if problems := [item for item in lines if isinstance(item, Problem)]:
        raise BadInput(problems)
    text = "\n".join(item[1] for item in lines if not isinstance(item, Problem))
    try:
        return text, json.loads(text)
    except json.JSONDecodeError as error:
        where = f"{path}:{error.lineno}:{error.colno}"
        if error.msg == "Extra data" and text[skip_space(text, 0)] == "{":
            fix += "; one object a line is data.format=jsonl"
        raise BadInput(Problem(where, f"no JSON ({error.msg})", fix)) from error
    except RecursionError as error:
        raise BadInput(_too_deep().at(path)) from error


def rows_array(path: str, text: str, document: Any, key: str = ROWS_KEY) -> int:
    """Where the array under the key begins. Raises BadInput where the object has none, or two."""
    if not isinstance(document, dict) or not isinstance(document.get(key), list):
        raise BadInput(_no_rows(path, document, key))
    array, *more = values_of(text, skip_space(text, 0), key)
    if more:
        raise BadInput(Problem(path, f"the key {key!r} stands twice", "join the arrays"))
    return array


def _no_rows(path: str, document: Any, key: str) -> Problem:
    found, fix = KINDS.get(type(document), "a number"), "write an array of objects"
    if isinstance(document, dict):
        found = f"an object without an array under {key!r} (keys: {', '.join(document)})"
        arrays = sorted(name for name, value in document.items() if isinstance(value, list))
        if arrays:
            return Problem(path, found, f"name one of its arrays: {path}#{arrays[0]}")
    return Problem(path, found, f"{fix}, or one object a line")


def half_of_a_pair(text: str, value: Any) -> bool:
    """Whether the JSON text spells a character that is none: one half of a surrogate pair, as is
    left of an emoji where a text was cut."""
    if not SURROGATE.search(text):
        return False
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def _row_or_problem(path: str, line: int, text: str) -> RawRow | Problem:
    where = f"{path}:{line}"
    try:
        value = parse(text, "write one JSON object a line")
    except NoJson as error:
        return error.at(where)
    if isinstance(value, dict):
        return RawRow(line, value)
    if isinstance(value, list) and value:  # columns without names
        return RawRow(line, {str(number): each for number, each in enumerate(value)})
    found = f"{KINDS.get(type(value), 'a number')} where an object is expected"
    return Problem(where, found, 'write {"field": value, ...}')
