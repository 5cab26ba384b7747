"""Which tokens of a window an answer begins and ends with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from bigft.data.records import IGNORE_INDEX
from bigft.tasks.question_answering.windows import Windows

OUTSIDE = "have windows that do not hold their answer: their targets are the first token"
TORN = (
    "have an answer that no window holds whole, so that their targets are the first token: raise "
    "task.doc_stride or data.max_seq_length"
)
NO_TOKEN = "have an answer that the tokenizer makes no token of: nothing is learnt of it"


class Target(NamedTuple):
    """Positions of the answer's first and last token in a row; IGNORE_INDEX: there is nothing to
    learn."""

    start: int
    end: int


NO_TARGET = Target(IGNORE_INDEX, IGNORE_INDEX)


def targets_of(
    cut: Windows, answers: Sequence[Mapping[str, Any]] | None
) -> tuple[list[Target], str]:
    """The target of each window, and a note, or "".

    The first of the answers is learnt; where a window does not hold all of it, and where there is
    none, both positions are that of "no answer". answers: None: there is nothing to learn.
    """
    if answers is None:
        return [NO_TARGET] * len(cut.windows), ""
    targets = [Target(window.null, window.null) for window in cut.windows]
    if not answers:
        return targets, ""
    start = answers[0]["answer_start"]
    end = start + len(answers[0]["text"])
    held = [at for at, of_token in enumerate(cut.characters)
            if of_token.start < end and start < of_token.end]  # fmt: skip
    if not held:
        return [NO_TARGET] * len(cut.windows), NO_TOKEN
    first, last = held[0], held[-1]
    num_outside = 0
    for number, window in enumerate(cut.windows):
        if window.first <= first and last < window.end:
            shift = window.position - window.first
            targets[number] = Target(first + shift, last + shift)
        else:
            num_outside += 1
    if num_outside == len(targets):
        return targets, TORN
    return targets, OUTSIDE if num_outside else ""
