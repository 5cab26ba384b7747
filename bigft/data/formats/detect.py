"""Which format a file has: by its content, and by its suffix where the content leaves it open."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

from bigft.config.errors import BadInput, Problem
from bigft.data.formats.base import BYTE_ORDER_MARK, check_path
from bigft.data.formats.files import PARQUET_MAGIC, data_suffix, open_data

DATASET_FILES = ("dataset_info.json", "state.json", "dataset_dict.json")
SUFFIXES = {".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl"}
SUFFIXES |= {".conllu": "conllu", ".conllup": "conllu", ".parquet": "parquet"}
SUFFIXES |= {".csv": "csv", ".tsv": "tsv", ".txt": "text"}

# "{" and "[" are tokens too, so the character after the bracket counts.
JSON_ARRAY = re.compile(rb"\s*\[\s*([{\]]|\[\s*[\"\d])")
JSON_OBJECT = re.compile(rb'\s*\{\s*["}]')
# An object whose first one under "data" has, behind texts and numbers, "paragraphs".
STRING = rb'"(?:[^"\\]|\\.)*"'
SQUAD = re.compile(
    rb'"data"\s*:\s*\[\s*\{\s*'
    rb"(?:%b\s*:\s*(?:%b|[^\s\"\[\]{},]+)\s*,\s*)*" % (STRING, STRING) + rb'"paragraphs"\s*:\s*\['
)
CONLLU_WORD = re.compile(rb"\d+([-.]\d+)?(\t[^\t]+){9}\r?\n?")
MOST = 0.9  # of the lines: a CoNLL file may have some that are broken
HEAD = 65536  # bytes to look at: more than the comments ahead of a first sentence


def detect_format(path: str, of_words: bool = True) -> str:
    """The key of FORMATS for a file or a directory. Raises BadInput where there is none.

    of_words: whether it may be a CoNLL file; without, such a file is a table or a text.
    """
    place = Path(path)
    if place.is_dir() and any((place / name).is_file() for name in DATASET_FILES):
        return "datasets"
    if place.is_dir() and any(data_suffix(str(file)) == ".txt" for file in place.glob("*/*")):
        return "textfolder"
    check_path(path, directory=False)
    with open_data(path) as file:
        head = file.read(HEAD).removeprefix(BYTE_ORDER_MARK)  # the reader refuses it
    if not head:
        raise BadInput(Problem(path, "an empty file"))
    if head.startswith(PARQUET_MAGIC):
        return "parquet"
    if JSON_ARRAY.match(head):
        return "json"
    if JSON_OBJECT.match(head):
        return "squad" if SQUAD.search(head) else _json_or_jsonl(path)
    suffix = SUFFIXES.get(data_suffix(path), "")
    if suffix == "csv":
        return suffix
    if not of_words:
        return "tsv" if suffix == "tsv" else suffix or "text"
    if _is_conllu(head):
        return "conllu"
    # Both suffixes are those of many CoNLL files, too.
    if (suffix == "tsv" and _has_break(head)) or (suffix == "text" and _has_columns(head)):
        return "conll"
    return suffix or "conll"


def has_sentences(path: str) -> bool:
    """Whether an empty line ends a sentence at the beginning of the file, as in a CoNLL file."""
    return _has_break(_head(path))


def has_table(path: str) -> bool:
    """Whether the lines at the beginning of the file have equally many TABs, one at least."""
    lines = [line for line in _head(path).splitlines() if line.strip()]
    counts = {line.count(b"\t") for line in lines}
    return len(counts) == 1 and 0 not in counts


def _head(path: str) -> bytes:
    """Whole lines."""
    with open_data(path) as file:
        head = file.read(HEAD)
    return head[: head.rfind(b"\n") + 1] if len(head) == HEAD else head


def _json_or_jsonl(path: str) -> str:
    """JSON Lines if the first line is an object by itself, unless that object holds all rows."""
    with open_data(path) as file:
        lines = (line for line in file if line.strip())
        first, has_second = next(lines), next(lines, None) is not None
    try:
        value = json.loads(first)
    except (ValueError, RecursionError):
        return "jsonl" if SUFFIXES.get(data_suffix(path)) == "jsonl" else "json"
    rows = value.get("data")
    holds_rows = isinstance(rows, list) and all(isinstance(row, dict) for row in rows)
    return "json" if holds_rows and not has_second else "jsonl"


def _is_conllu(head: bytes) -> bool:
    """`# sent_id` alone decides nothing: files of other columns carry CoNLL-U's comments too."""
    for line in head.splitlines():
        if line.startswith(b"# global.columns"):
            return True
        if line.strip() and not line.startswith(b"#"):
            return CONLLU_WORD.fullmatch(line) is not None
    return False


def _has_break(head: bytes) -> bool:
    """Whether an empty line ends a sentence; the table of a TSV file has none."""
    return any(not line.strip() for line in head.strip().splitlines())


def _has_columns(head: bytes) -> bool:
    """Whether the lines have equally many columns, two at least; those of a text differ."""
    lines = [line for line in head.splitlines() if line.strip() and not line.startswith(b"#")]
    separator = b"\t" if lines and b"\t" in lines[0] else None
    counts = Counter(len(line.split(separator)) for line in lines)
    counts.pop(1, None)
    return bool(counts) and max(counts.values()) >= MOST * len(lines)
