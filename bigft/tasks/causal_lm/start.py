"""How `bigft init` finds what a language model can learn from."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from bigft.data.records import Record
from bigft.tasks.causal_lm.conversations import FORMS
from bigft.tasks.protocol import Certainty, Guess, Start

# Names of a prompt and of its answer, in any case; of several the first.
PROMPTS = ("question", "prompt", "query", "instruction", "problem", "input", "user")
ANSWERS = ("answer", "response", "completion", "output", "solution", "reply", "assistant")


def guesses(paths: Sequence[str], format: str, records: Sequence[Record]) -> Iterator[Guess]:
    fields = dict(records[0].fields)
    for name, form in FORMS.items():
        if name != "text" and all(field in fields for field in form.fields):
            yield Guess(Certainty.KNOWN, comment=f"read as {name}")
    texts = [name for name in fields if isinstance(fields[name], str)]
    prompt, answer = _first(PROMPTS, texts), _first(ANSWERS, texts)
    if prompt and answer:
        keys = {"data.text_column_name": prompt, "data.label_column_name": answer}
        yield Guess(Certainty.USUAL, keys, f"the prompt, and the answer{_unread(fields, keys)}")
    elif "text" in texts:
        yield Guess(Certainty.FALLBACK, comment="plain text" + _unread(fields, {"": "text"}))
    elif len(texts) == 1 and not any(isinstance(value, list | dict) for value in fields.values()):
        keys = {"data.text_column_name": texts[0]}
        yield Guess(Certainty.FALLBACK, keys, "plain text" + _unread(fields, keys))


def _first(usual: Sequence[str], names: Sequence[str]) -> str | None:
    of_lower = {name.lower(): name for name in names}
    return next((of_lower[name] for name in usual if name in of_lower), None)


def _unread(fields: dict[str, Any], keys: dict[str, str]) -> str:
    others = [name for name in fields if name not in keys.values()]
    return f"; not read: {', '.join(others)}" if others else ""


START = Start(
    ", ".join("+".join(form.fields) for form in FORMS.values()) + ", or lines of text",
    "Qwen/Qwen2.5-0.5B-Instruct",
    "a small one; conversations need a model with a chat template",
    guesses,
)
