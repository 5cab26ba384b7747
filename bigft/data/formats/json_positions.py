"""Where values stand in a JSON text that is known to be sound; the json module does not tell."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

SPACE = re.compile(r"[ \t\r\n]*")
DECODER = json.JSONDecoder()


def skip_space(text: str, position: int) -> int:
    """The first position from this one on that is no white space."""
    match = SPACE.match(text, position)
    assert match
    return match.end()


def elements(text: str, array: int) -> Iterator[tuple[int, int]]:
    """(start, end) of each element of the array that begins at `array`."""
    position = skip_space(text, array + 1)
    while text[position] != "]":
        end = _end(text, position)
        yield position, end
        position = _behind_comma(text, end)


def values_of(text: str, start: int, key: str) -> Iterator[int]:
    """Where each value of the key begins in the object that begins at `start`."""
    position = skip_space(text, start + 1)
    while text[position] != "}":
        key_end = _end(text, position)
        value = skip_space(text, skip_space(text, key_end) + 1)
        if json.loads(text[position:key_end]) == key:
            yield value
        position = _behind_comma(text, _end(text, value))


class Lines:
    """1-based numbers of lines, for positions that are asked for in their order."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._line, self._counted = 1, 0

    def at(self, position: int) -> int:
        self._line += self._text.count("\n", self._counted, position)
        self._counted = position
        return self._line


def _end(text: str, start: int) -> int:
    return DECODER.raw_decode(text, start)[1]


def _behind_comma(text: str, end: int) -> int:
    position = skip_space(text, end)
    return skip_space(text, position + 1) if text[position] == "," else position
