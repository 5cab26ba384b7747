"""Plain text: files whose lines are samples, paragraphs or one document; a folder of files for each
label; files in pairs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path

from bigft.config.errors import Problem
from bigft.data.formats.base import RawRow, ReadOptions, text_lines
from bigft.data.formats.files import check_file


def read_text(path: str, options: ReadOptions) -> Iterator[RawRow | Problem]:
    """{"text"} of each line that is not blank, of each paragraph, or of the whole file.

    Blank lines separate paragraphs; those within a document are part of it.
    """
    by = options.sample_by
    begin = 0
    sample: list[str] = []
    for item in text_lines(path):
        if isinstance(item, Problem):
            yield item
            continue
        number, line = item
        is_blank = not line.strip()
        if not is_blank or (sample and by == "document"):
            begin = begin if sample else number
            sample.append(line)
        if sample and (by == "line" or (is_blank and by == "paragraph")):
            yield RawRow(begin, {"text": "\n".join(sample)})
            sample = []
    if sample:
        yield RawRow(begin, {"text": "\n".join(sample).rstrip("\n")})


def read_text_folder(path: str, options: ReadOptions) -> Iterator[RawRow | Problem]:
    """{"text", "label"} of each file below the folder: its text, and the folder that it lies in."""
    root = Path(path)
    for file in sorted(one for one in root.rglob("*") if one.is_file()):
        inner = file.relative_to(root)
        if any(part.startswith(".") for part in inner.parts):
            continue
        if len(inner.parts) == 1:
            fix = "move it into the folder of its label"
            yield Problem(f"{file}:1", "it lies in no label's folder", fix)
            continue
        check_file(str(file))
        lines = list(text_lines(str(file)))
        problems = [line for line in lines if isinstance(line, Problem)]
        yield from problems
        if not problems:
            text = "\n".join(line[1] for line in lines if not isinstance(line, Problem))
            fields = {"text": text, "label": inner.parts[0]}
            yield RawRow(1, fields, file=str(file))


def read_parallel(source: str, target: str, options: ReadOptions) -> Iterator[RawRow | Problem]:
    """{"source", "target"} of each line of two files; lines that are blank in both are skipped."""
    sides = (source, target)
    pairs = zip_longest(text_lines(source), text_lines(target))
    for number, pair in enumerate(pairs, 1):
        if None in pair:
            ended = pair.index(None)
            found = f"{sides[ended]} has {number - 1} lines and no partner for this one"
            fix = "line n of one must translate line n of the other"
            yield Problem(f"{sides[1 - ended]}:{number}", found, fix)
            return
        if problems := [item for item in pair if isinstance(item, Problem)]:
            yield from problems
            continue
        texts = [item[1] for item in pair if isinstance(item, tuple)]
        blank = [side for side, text in zip(sides, texts, strict=True) if not text.strip()]
        if len(blank) == 1:
            (other,) = {*sides} - {*blank}
            found = f"an empty line where {other} has text"
            yield Problem(f"{blank[0]}:{number}", found, "translate it, or delete both lines")
        elif not blank:
            yield RawRow(number, dict(zip(("source", "target"), texts, strict=True)))
