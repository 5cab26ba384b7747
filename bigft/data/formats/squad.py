"""SQuAD 1.1 and 2.0, and what is written like them: articles of paragraphs of questions."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bigft.config.errors import BadInput, Problem
from bigft.data.formats.base import RawRow, ReadOptions
from bigft.data.formats.json_positions import Lines, elements, values_of
from bigft.data.formats.json_rows import NoJson, parse, read_whole, rows_array

LAYOUT = '{"data": [{"paragraphs": [{"context": "...", "qas": [...]}]}]}'


def read_squad(path: str, options: ReadOptions) -> Iterator[RawRow | Problem]:
    """The questions, each with its paragraph's `context` and the line that it begins in."""
    text, document = read_whole(path, "write one JSON object")
    if not isinstance(document, dict):
        fix = f"write {LAYOUT}; an array of questions is data.format=json"
        raise BadInput(Problem(path, "no object with articles under 'data'", fix))
    lines = Lines(text)
    for start, end in elements(text, rows_array(path, text, document)):
        where = f"{path}:{lines.at(start)}"
        try:
            article = parse(text[start:end])
        except NoJson as error:
            yield Problem(where, error.what, error.fix)
            continue
        if not isinstance(article, dict) or not isinstance(article.get("paragraphs"), list):
            fix = f"write {LAYOUT}; an array of questions is data.format=json"
            yield Problem(where, "an article without an array `paragraphs`", fix)
            continue
        (array,) = values_of(text, start, "paragraphs")
        places = elements(text, array)
        for paragraph, (place, _) in zip(article["paragraphs"], places, strict=True):
            yield from _questions(path, text, lines, paragraph, place)


def _questions(
    path: str, text: str, lines: Lines, paragraph: Any, start: int
) -> Iterator[RawRow | Problem]:
    where = f"{path}:{lines.at(start)}"
    fields = paragraph if isinstance(paragraph, dict) else {}
    if not isinstance(fields.get("context"), str) or not isinstance(fields.get("qas"), list):
        what = "a paragraph without a text `context` and an array `qas`"
        yield Problem(where, what, f"write {LAYOUT}")
        return
    (array,) = values_of(text, start, "qas")
    for question, (place, _) in zip(fields["qas"], elements(text, array), strict=True):
        line = lines.at(place)
        if isinstance(question, dict):
            yield RawRow(line, {**question, "context": fields["context"]})
        else:
            yield Problem(f"{path}:{line}", "a question that is no object", f"write {LAYOUT}")
