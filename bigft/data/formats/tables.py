"""CSV and TSV: tables of text, a sample a row.

The first row names the columns. Where the config names its columns by number there is no such row,
and a field's name is the number of its column: "0", "1", ...
"""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from bigft.config.errors import BadInput, Problem
from bigft.data.formats.base import RawRow, ReadOptions, did_you_mean, text_lines

MAX_FIELD = 1 << 24  # characters; a quote that is never closed would take in the whole file
SEPARATORS = {";": "semicolons", "\t": "TABs", "|": "bars", ",": "commas"}

Cells: TypeAlias = Iterator[tuple[int, list[str]] | Problem]
"""(line that the row begins in, its fields)."""


def read_csv(path: str, options: ReadOptions) -> Iterator[RawRow | Problem]:
    """A quoted field may hold commas, "" for a quote, and line ends, which become LF."""
    return _rows(path, options, _csv_cells(path), 'put a field that holds commas in "quotes"')


def read_tsv(path: str, options: ReadOptions) -> Iterator[RawRow | Problem]:
    """A field is what stands between two TABs: nothing is quoted, a quote is a character."""
    return _rows(path, options, _tsv_cells(path), "write a TAB between two fields and nowhere else")


def _csv_cells(path: str) -> Cells:
    unreadable: list[Problem] = []

    def lines() -> Iterator[str]:
        for item in text_lines(path):
            if isinstance(item, Problem):
                unreadable.append(item)
                yield "\n"  # in its place, so that the reader's count of lines stays right
            else:
                yield item[1] + "\n"

    csv.field_size_limit(MAX_FIELD)
    reader = csv.reader(lines(), strict=True)
    while True:
        begin = reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            found = f"no CSV ({str(error).partition(' - ')[0]})"
            fix = 'close every quote, and write "" for a quote within a quoted field'
            yield Problem(f"{path}:{begin}", found, fix)
            return  # where the next row begins cannot be told
        if unreadable:
            yield from unreadable
            unreadable.clear()
        elif cells:
            yield begin, cells
        if cells is None:
            return


def _tsv_cells(path: str) -> Cells:
    for item in text_lines(path):
        if isinstance(item, Problem):
            yield item
        elif "\r" in item[1]:
            where = f"{path}:{item[0]}"
            yield Problem(where, "a carriage return within the line", "end lines with LF or CRLF")
        elif item[1]:
            yield item[0], item[1].split("\t")


def _rows(path: str, options: ReadOptions, table: Cells, fix: str) -> Iterator[RawRow | Problem]:
    names: list[str] = []
    for item in table:
        if isinstance(item, Problem):
            yield item
            if not names:
                return
            continue
        line, cells = item
        if not names:
            numbered = any(isinstance(column, int) for _, column in options.asked())
            names = [str(number) for number in range(len(cells))] if numbered else cells
            where = f"{path}:{line}"
            if problems := list(_unnamed(where, options, names)) or [
                *_repeated(where, names),
                *_absent(path, options, names),
            ]:
                raise BadInput(problems)
            if not numbered:
                continue
        if len(cells) == len(names):
            yield RawRow(line, dict(zip(names, cells, strict=True)))
        else:
            plural = "s" * (len(cells) != 1)
            found = f"{len(cells)} field{plural} where the first row has {len(names)}"
            yield Problem(f"{path}:{line}", found, fix)


def _repeated(where: str, names: Sequence[str]) -> Iterator[Problem]:
    for name, count in Counter(names).items():
        if count > 1:
            yield Problem(where, f"{count} columns are named {name!r}", "rename all but one")


def _absent(path: str, options: ReadOptions, names: Sequence[str]) -> Iterator[Problem]:
    for option, column in options.asked():
        if str(column) not in names:
            fix = _other_separator(names) or did_you_mean(str(column), names)
            fix = fix or "write one of these"
            found = f"no column {column!r}; there are {', '.join(names)}"
            yield Problem(f"{path}: data.{option}", found, fix)


def _unnamed(where: str, options: ReadOptions, names: Sequence[str]) -> Iterator[Problem]:
    """A first row without any name that is known is a sample, or names that must be given."""
    if options.asked() or any(options.uses(name) for name in names):
        return
    found = f"the first row is taken for the names of the columns: {', '.join(names)[:80]}"
    known = f"known are {', '.join(sorted(options.columns or ()))}"
    fix = _other_separator(names) or _how_to_name(len(names))
    if options.of_words:
        fix += "; a word and its label a line are data.format=conll"
    yield Problem(where, f"{found}; {known}", fix)


def _how_to_name(width: int) -> str:
    if width == 1:
        return "set data.text_column_name=0 if it is a sample, else to this name"
    numbers = "data.text_column_name=0 data.label_column_name=1"
    if width > 2:
        numbers = "data.text_column_name and data.label_column_name to two numbers from 0 to "
        numbers += str(width - 1)
    return f"set {numbers} if it is a sample, else to two of these names"


def _other_separator(names: Sequence[str]) -> str:
    """What to do with a table whose only column holds another separator; "" for others."""
    if len(names) > 1:
        return ""
    name = next((name for mark, name in SEPARATORS.items() if mark in names[0]), "")
    return name and (
        f"its fields seem to be separated by {name}: separate them by commas (data.format=csv) or "
        "TABs (data.format=tsv)"
    )
