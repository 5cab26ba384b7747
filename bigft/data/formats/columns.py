"""CoNLL and CoNLL-U files: one token a line, an empty line after each sentence.

A row's fields are `tokens`, `ner_tags` (absent where the file has one column) and `lines`, the
line number of each token.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

from bigft.config.errors import BadInput, Problem
from bigft.data.formats.base import Columns, RawRow, ReadOptions, did_you_mean, text_lines

CONLLU_NAMES = ["id", "form", "lemma", "upos", "xpos", "feats", "head", "deprel", "deps", "misc"]
GLOBAL_COLUMNS = "# global.columns ="
DOCUMENT_START = "-DOCSTART-"

# In a file of spaces "# O" is the token "#"; only this can be nothing but a comment.
KEY_VALUE_COMMENT = re.compile(r"# [\w.:-]+( [\w.:-]+)? = ")
# CoNLL-2012 and MultiCoNER.
SOURCE = re.compile(r"#\t\w+://")  # GermEval
BEGIN_OR_ID = re.compile(r"#(begin|end) document|# id \S+\s+domain=")
WORD_NUMBER = re.compile(r"\d+")
# Of columns in the first row of a file, in the singular.
WORD_NAMES = {"token", "word", "form", "text"}
LABEL_NAMES = {"tag", "label", "ner", "ner_tag", "ner-tag", "pos", "pos_tag", "entity", "bio"}
NO_WORD = re.compile(r"\d+[-.]\d+")  # a multi-word range or an empty node


class Layout(NamedTuple):
    """separator: "\\t" or " ".  names: lower case, [] where the file names no columns.

    number: the column that numbers the words (CoNLL-U); None where there is no such column.
    """

    separator: str
    width: int
    names: list[str]
    number: int | None

    def is_comment(self, line: str) -> bool:
        if self.number is not None:
            return line.startswith("#")
        if BEGIN_OR_ID.match(line):
            return True
        if self.separator == "\t":
            return SOURCE.match(line) is not None or (line.startswith("# ") and "\t" not in line)
        return KEY_VALUE_COMMENT.match(line) is not None


def read_conll(path: str, options: ReadOptions) -> Iterator[RawRow | Problem]:
    """Sentences of a file of columns, separated by TAB if its first token line has one."""
    names, first_line = _head(path)
    if not first_line:
        return (item for item in text_lines(path) if isinstance(item, Problem))
    separator = "\t" if "\t" in first_line else " "
    first = _split(first_line, separator)
    width = len(names or first)
    layout = Layout(separator, width, names, None)
    if options.text_column_name is None and width > 2 and first[0] == "1":
        found = f"the first of {width} columns seems to number the tokens"
        fix = "set data.text_column_name and data.label_column_name (0 is the first column)"
        raise BadInput(Problem(path, found, fix))
    text = _column(path, "text_column_name", options.text_column_name, 0, layout)
    label = None
    if width > 1 or options.label_column_name is not None:
        label = _column(path, "label_column_name", options.label_column_name, width - 1, layout)
    if text == label:
        found = f"text and label are both column {text} of {width}"
        fix = "set data.text_column_name and data.label_column_name to two columns"
        raise BadInput(Problem(path, found, fix))
    if label is not None and not names and _is_header(first[text], first[label]):
        found = f"its first row names the columns ({first[text]}, {first[label]}): it is no token"
        raise BadInput(Problem(path, found, "delete that row"))
    return _sentences(path, layout, text, label)


def _is_header(word: str, label: str) -> bool:
    """Whether a row of token and label holds the names of these columns."""
    return word.lower().rstrip("s") in WORD_NAMES and label.lower().rstrip("s") in LABEL_NAMES


def num_columns(path: str) -> int:
    """Of a file without stated names: the columns of its first token line; 0 without one."""
    line = _head(path)[1]
    return len(_split(line, "\t" if "\t" in line else " "))


def read_conllu(path: str, options: ReadOptions) -> Iterator[RawRow | Problem]:
    """Sentences of a CoNLL-U or CoNLL-U Plus file, without multi-word ranges and empty nodes."""
    names = _head(path)[0] or CONLLU_NAMES
    layout = Layout("\t", len(names), names, names.index("id") if "id" in names else None)
    text = _column(path, "text_column_name", options.text_column_name, "form", layout)
    label = _column(path, "label_column_name", options.label_column_name, "upos", layout)
    return _sentences(path, layout, text, label)


def _head(path: str) -> tuple[list[str], str]:
    """The column names that the file states, if any, and its first line that is surely a token's.

    A line with "#" in front is taken for it only if the file has no other.
    """
    names: list[str] = []
    hash_line = ""
    for item in text_lines(path):
        if isinstance(item, Problem) or _is_break(item[1]):
            continue
        line = item[1]
        if line.startswith(GLOBAL_COLUMNS):
            names = line.removeprefix(GLOBAL_COLUMNS).lower().split()
        elif not line.startswith("#"):
            return names, line
        else:
            hash_line = hash_line or line
    return names, hash_line


def _column(path: str, option: str, asked: Columns, default: str | int, layout: Layout) -> int:
    column = default if asked is None else asked
    where = f"{path}: data.{option}"
    if isinstance(column, tuple):
        raise BadInput(Problem(where, "several columns, but a token has one", "name one"))
    numbers = f"write a number from 0 to {layout.width - 1}"
    if isinstance(column, int):
        if not 0 <= column < layout.width:
            found = f"column {column} of a file of {layout.width} columns"
            raise BadInput(Problem(where, found, numbers))
        return column
    if not layout.names:
        raise BadInput(Problem(where, f"{column!r}, but this file names no columns", numbers))
    if column.lower() not in layout.names:
        found = f"no column {column!r}; there are {', '.join(layout.names)}"
        fix = did_you_mean(column.lower(), layout.names) or "write one of these"
        raise BadInput(Problem(where, found, fix))
    return layout.names.index(column.lower())


def _sentences(
    path: str, layout: Layout, text: int, label: int | None
) -> Iterator[RawRow | Problem]:
    sentence: list[tuple[int, list[str]]] = []
    for item in text_lines(path):
        if isinstance(item, Problem):
            yield item
            continue
        number, line = item
        if _is_break(line):
            if sentence:
                yield _row(sentence, text, label)
            sentence = []
        # Only ahead of a sentence: within one, "# ..." is what a forgotten empty line looks like.
        elif sentence or not layout.is_comment(line):
            columns = _split(line, layout.separator)
            if problem := _fault(f"{path}:{number}", line, columns, layout):
                yield problem
            elif layout.number is None or WORD_NUMBER.fullmatch(columns[layout.number]):
                sentence.append((number, columns))
    if sentence:
        yield _row(sentence, text, label)


def _split(line: str, separator: str) -> list[str]:
    columns = line.split(separator)
    # Runs of spaces align columns; str.split() would also cut tokens at no-break spaces.
    return columns if separator == "\t" else [column for column in columns if column]


def _is_break(line: str) -> bool:
    return not line.strip() or line.startswith(DOCUMENT_START)


def _fault(where: str, line: str, columns: list[str], layout: Layout) -> Problem | None:
    if "\r" in line:
        return Problem(where, "a carriage return within the line", "end lines with LF or CRLF")
    if len(columns) != layout.width:
        shown = line if len(line) <= 40 else line[:40] + "..."
        plural = "s" * (len(columns) != 1)
        found = f"{len(columns)} column{plural} where the file has {layout.width}: {shown!r}"
        between = "a TAB" if layout.separator == "\t" else "spaces"
        fix = f"write {layout.width} with {between} between, and an empty line after a sentence"
        return Problem(where, found, fix)
    if layout.number is not None:
        word = columns[layout.number]
        if not WORD_NUMBER.fullmatch(word) and not NO_WORD.fullmatch(word):
            return Problem(where, f"{word!r} numbers no word", "write 3, a range 3-4 or 5.1")
    return None


def _row(sentence: list[tuple[int, list[str]]], text: int, label: int | None) -> RawRow:
    fields: dict[str, list[str] | list[int]] = {"tokens": [row[text] for _, row in sentence]}
    if label is not None:
        fields["ner_tags"] = [row[label] for _, row in sentence]
    fields["lines"] = [number for number, _ in sentence]
    return RawRow(sentence[0][0], fields)
