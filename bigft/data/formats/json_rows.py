"""JSON: an array of objects, or an object with such an array under "data"; JSON Lines."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any

from bigft.config.errors import BadInput, Problem
from bigft.data.formats.base import ReadOptions, Row, text_lines

ROWS_KEY = "data"  # SQuAD's, and what many exporters write
SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
SPACE = re.compile(r"[ \t\r\n]*")
KINDS = {list: "an array", str: "a string", bool: "true or false", type(None): "null"}


class _RepeatedKey(ValueError):
    """The message names the key."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        repeated, _ = Counter(key for key, _ in pairs).most_common(1)[0]
        raise _RepeatedKey(f"the key {repeated!r} stands twice in one object")
    return fields


DECODER = json.JSONDecoder(object_pairs_hook=_object)


def read_jsonl(path: str, options: ReadOptions) -> Iterator[Row | Problem]:
    """One object a line; blank lines are passed over."""
    for item in text_lines(path):
        if isinstance(item, Problem):
            yield item
        elif item[1].strip():
            number, line = item
            try:
                yield _row_or_problem(path, number, line)
            except json.JSONDecodeError as error:
                where = f"{path}:{number}:{error.colno}"
                yield Problem(where, f"no JSON ({error.msg})", "write one JSON object a line")
            except _RepeatedKey as error:
                yield _repeated(path, number, error)


def read_json(path: str, options: ReadOptions) -> Iterator[Row | Problem]:
    """The objects of the array, each with the line that it begins in."""
    lines = list(text_lines(path))
    if problems := [item for item in lines if isinstance(item, Problem)]:
        yield from problems
        return
    text = "\n".join(item[1] for item in lines if not isinstance(item, Problem))
    try:
        document = json.loads(text)  # the whole file is sound before a row is given out
    except json.JSONDecodeError as error:
        where = f"{path}:{error.lineno}:{error.colno}"
        raise BadInput(Problem(where, f"no JSON ({error.msg})", "write one JSON array")) from error
    array = _skip(text, 0)
    if not isinstance(document, list):
        if not isinstance(document, dict) or not isinstance(document.get(ROWS_KEY), list):
            raise BadInput(_no_rows(path, document))
        array, *more = _rows_offsets(text, array)
        if more:
            raise BadInput(Problem(path, f"the key {ROWS_KEY!r} stands twice", "join the arrays"))
    line, counted = 1, 0
    for start, end in _elements(text, array):
        line += text.count("\n", counted, start)
        counted = start
        try:
            yield _row_or_problem(path, line, text[start:end])
        except _RepeatedKey as error:
            yield _repeated(path, line, error)


def _no_rows(path: str, document: Any) -> Problem:
    found = KINDS.get(type(document), "a number")
    if isinstance(document, dict):
        found = f"an object without an array under {ROWS_KEY!r} (keys: {', '.join(document)})"
    return Problem(path, found, "write an array of objects, or one object a line")


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


def _row_or_problem(path: str, line: int, text: str) -> Row | Problem:
    value = DECODER.decode(text)
    if half_of_a_pair(text, value):
        found = "one half of a surrogate pair (\\ud800 to \\udfff): no character"
        return Problem(f"{path}:{line}", found, "cut texts between characters")
    if isinstance(value, dict):
        return Row(line, value)
    found = f"{KINDS.get(type(value), 'a number')} where an object is expected"
    return Problem(f"{path}:{line}", found, 'write {"field": value, ...}')


def _repeated(path: str, line: int, error: _RepeatedKey) -> Problem:
    return Problem(f"{path}:{line}", str(error), "rename or delete one of the two")


# The json module tells no positions. The rest finds them in text that is known to be sound.


def _skip(text: str, position: int) -> int:
    match = SPACE.match(text, position)
    assert match
    return match.end()


def _end(text: str, start: int) -> int:
    return json.JSONDecoder().raw_decode(text, start)[1]


def _elements(text: str, array: int) -> Iterator[tuple[int, int]]:
    """(start, end) of each element of the array that begins at `array`."""
    position = _skip(text, array + 1)
    while text[position] != "]":
        end = _end(text, position)
        yield position, end
        position = _skip(text, end)
        if text[position] == ",":
            position = _skip(text, position + 1)


def _rows_offsets(text: str, start: int) -> Iterator[int]:
    """Where each value of ROWS_KEY begins in the object that begins at `start`."""
    position = _skip(text, start + 1)
    while text[position] != "}":
        key_end = _end(text, position)
        value = _skip(text, _skip(text, key_end) + 1)
        if json.loads(text[position:key_end]) == ROWS_KEY:
            yield value
        position = _skip(text, _end(text, value))
        if text[position] == ",":
            position = _skip(text, position + 1)
