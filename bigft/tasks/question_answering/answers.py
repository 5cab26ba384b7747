"""From the scores of starts and ends to answers: spans of the context, or none."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bigft.tasks.protocol import Prediction


class Span(NamedTuple):
    """score: the logits of its first and last token, summed.  start, end: characters of the
    context, the end exclusive."""

    score: float
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Answers:
    """spans: the best ones that do not overlap, the best first.  probabilities: of each of them.

    null_score: of "no answer".  null_probability: of that.
    Probabilities are the softmax over all spans that were looked at, and "no answer" where
    questions may have none.
    """

    spans: list[Span]
    probabilities: list[float]
    null_score: float
    null_probability: float

    @property
    def null_score_diff(self) -> float | None:
        """By how much "no answer" is above the best span; None: there is no span."""
        return self.null_score - self.spans[0].score if self.spans else None


def best_spans(
    start_logits_N: NDArray[np.float32],
    end_logits_N: NDArray[np.float32],
    starts_N: Sequence[int],
    ends_N: Sequence[int],
    number: int,
    max_answer_length: int,
) -> list[Span]:
    """The spans with the largest scores, the best first; of equal ones the first.

    All are of the tokens of a window's context: starts_N, ends_N: the characters they stand for.
    max_answer_length: tokens of a span at most.
    """
    length = len(starts_N)
    width = min(max_answer_length, length)
    scores_NL = np.full((length, width), -np.inf, np.float32)  # by first token, and tokens more
    for more in range(width):
        scores_NL[: length - more, more] = start_logits_N[: length - more] + end_logits_N[more:]
    order = np.argsort(-scores_NL, axis=None, kind="stable")[:number]
    places = ((int(place) // width, int(place) % width) for place in order)
    return [
        Span(float(scores_NL[first, more]), starts_N[first], ends_N[first + more])
        for first, more in places
        if first + more < length
    ]


def join(parts: Sequence[Prediction], context: str, number: int, may_be_none: bool) -> Answers:
    """The answers of a question from those of its windows, whose spans are cut to what is no white
    space.

    parts: {"null": score, "spans": [[score, start, end], ...]} of each window.
    number: spans at most.  may_be_none: whether "no answer" is one of them.
    """
    scores: dict[tuple[int, int], float] = {}
    for score, start, end in (span for part in parts for span in part["spans"]):
        text = context[start:end]
        start += len(text) - len(text.lstrip())
        end -= len(text) - len(text.rstrip())
        if start < end:
            scores[start, end] = max(score, scores.get((start, end), -math.inf))
    found = sorted((Span(score, *place) for place, score in scores.items()), key=_rank)
    null_score = min(part["null"] for part in parts)
    all_scores = [span.score for span in found] + [null_score] * may_be_none
    probabilities = _softmax(all_scores)
    chosen: list[int] = []
    for index, span in enumerate(found):
        others = (found[other] for other in chosen)
        if all(span.end <= other.start or other.end <= span.start for other in others):
            chosen.append(index)
    chosen = chosen[:number]
    return Answers(
        [found[index] for index in chosen],
        [probabilities[index] for index in chosen],
        null_score,
        probabilities[-1] if may_be_none else 0.0,
    )


def _rank(span: Span) -> tuple[float, int, int]:
    return -span.score, span.start, span.end


def _softmax(scores: Sequence[float]) -> list[float]:
    if not scores:
        return []
    largest = max(scores)
    weights = [math.exp(score - largest) for score in scores]
    total = math.fsum(weights)
    return [weight / total for weight in weights]
