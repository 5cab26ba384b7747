"""How `bigft init` finds pairs of texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bigft.data.formats.files import data_suffix
from bigft.data.records import Record
from bigft.tasks.protocol import Certainty, Guess, Start
from bigft.tasks.seq2seq.fields import SIDES
from bigft.tasks.seq2seq.languages import script_of

# Names of a source and a target.
PAIRS = (
    *(("src", "tgt"), ("src", "trg"), ("input", "target"), ("document", "summary")),
    *(("article", "highlights"), ("article", "summary"), ("dialogue", "summary")),
    *(("text", "summary"), ("text", "target")),
)
MANY = 8  # targets, from which on one can tell
DIRECTION = "exchange the two for the other direction"
NO_LANGUAGE = ("id", "no", "is")  # codes that are usual names of other columns


def guesses(paths: Sequence[str], format: str, records: Sequence[Record]) -> Iterator[Guess]:
    fields = records[0].fields
    texts = [name for name in fields if isinstance(fields[name], str)]
    translation = fields.get("translation")
    if format == "parallel":
        yield _of_files(*paths)
    elif {*SIDES} <= {*texts}:
        yield Guess(Certainty.KNOWN, comment="source and target")
    elif isinstance(translation, dict):
        named = dict(zip(("task.source_lang", "task.target_lang"), translation, strict=False))
        yield Guess(Certainty.KNOWN, named if len(translation) == 2 else {}, DIRECTION)
    elif texts[:2] == ["0", "1"]:
        if not _recur([record.fields["1"] for record in records]):  # as classes of texts do
            note = "a source and a target: the first two columns, since none is named"
            yield Guess(Certainty.USUAL, _columns(0, 1), note)
    else:
        for pair in PAIRS:
            if {*pair} <= {*texts}:
                yield Guess(Certainty.USUAL, _columns(*pair), "source and target")
        codes = [name for name in texts if name not in NO_LANGUAGE and _is_language(name)]
        if len(codes) == 2:
            yield Guess(Certainty.USUAL, _columns(*codes) | _languages(*codes), DIRECTION)


def _recur(targets: Sequence[str]) -> bool:
    """Whether a few values stand for most targets, as classes do."""
    return len(targets) >= MANY and 2 * len({*targets}) < len(targets)


def _is_language(name: str) -> bool:
    return script_of(name) is not None


def _of_files(source: str, target: str) -> Guess:
    ends = [data_suffix(path).removeprefix(".") for path in (source, target)]
    languages = _languages(*ends) if all(map(_is_language, ends)) else {}
    return Guess(Certainty.KNOWN, languages, DIRECTION if languages else "source and target")


def _columns(source: str | int, target: str | int) -> dict[str, Any]:
    return dict(zip((f"data.{key}" for key in SIDES.values()), (source, target), strict=True))


def _languages(source: str, target: str) -> dict[str, Any]:
    return {"task.source_lang": source, "task.target_lang": target}


START = Start(
    "source+target, translation {language: text}, a table of two texts, two parallel files",
    "google/flan-t5-small",
    "a small one for English; for other languages a Marian, mBART or NLLB model",
    guesses,
)
