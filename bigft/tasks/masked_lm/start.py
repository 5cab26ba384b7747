"""How `bigft init` finds texts to adapt an encoder to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from bigft.data.records import Record
from bigft.tasks.protocol import Certainty, Guess, Start

USUAL = ("text", "content", "body", "sentence", "document", "abstract")


def guesses(paths: Sequence[str], format: str, records: Sequence[Record]) -> Iterator[Guess]:
    fields = records[0].fields
    texts = [name for name in fields if isinstance(fields[name], str)]
    known = [name for usual in USUAL for name in texts if name.lower() == usual]
    longest = sorted(texts, key=lambda name: len(fields[name]), reverse=True)
    if name := next(iter(known + longest), None):
        keys = {} if name == "text" else {"data.text_column_name": name}
        others = [other for other in fields if other != name]
        unread = f"; not read: {', '.join(others)}" if others else ""
        yield Guess(Certainty.FALLBACK, keys, f"texts, whose tokens are masked{unread}")


START = Start(
    "lines of text, or objects with `text`",
    "bert-base-uncased",
    "for English; for other languages bert-base-multilingual-cased",
    guesses,
    by_data=False,  # all text can be learnt so, labelled or not
)
