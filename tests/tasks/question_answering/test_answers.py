"""The best spans of a window are those of every span tried, and windows are joined by score."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigft.tasks.question_answering.answers import Span, best_spans, join

CONTEXT = "one two three four five six seven"
WORDS = [(at, at + len(word)) for word in CONTEXT.split() for at in [CONTEXT.index(word)]]
LOGITS = st.lists(st.integers(-9, 9), min_size=1, max_size=7)


@settings(max_examples=100, deadline=None)
@given(LOGITS, LOGITS, st.integers(1, 9), st.integers(1, 40))
def test_no_span_is_missed(start: list[int], end: list[int], longest: int, number: int) -> None:
    size = min(len(start), len(end))
    tried = [
        Span(float(start[first] + end[last]), WORDS[first][0], WORDS[last][1])
        for first in range(size)
        for last in range(first, min(size, first + longest))
    ]
    expected = sorted(tried, key=lambda span: (-span.score, span.start, span.end))[:number]
    starts, ends = zip(*WORDS[:size], strict=True)
    logits = [np.array(side[:size], np.float32) for side in (start, end)]
    assert best_spans(*logits, starts, ends, number, longest) == expected


def test_a_window_without_context_has_no_span() -> None:
    none = np.zeros(0, np.float32)
    assert best_spans(none, none, [], [], 5, 5) == []


def part(null: float, *spans: tuple[float, str]) -> dict[str, object]:
    found = [[score, CONTEXT.index(text), CONTEXT.index(text) + len(text)] for score, text in spans]
    return {"null": null, "spans": found}


def test_spans_of_all_windows_compete_and_do_not_overlap() -> None:
    parts = [
        part(1.0, (5.0, "two three"), (4.0, "three"), (3.0, "one")),
        part(-2.0, (6.0, "three four"), (4.5, "three"), (2.0, "seven")),
    ]
    found = join(parts, CONTEXT, 10, may_be_none=False)
    texts = [CONTEXT[span.start : span.end] for span in found.spans]
    assert texts == ["three four", "one", "seven"]
    weights = {score: math.exp(score) for score in (5.0, 4.5, 3.0, 6.0, 2.0)}  # "three" once
    total = sum(weights.values())
    assert found.probabilities == pytest.approx([weights[at] / total for at in (6.0, 3.0, 2.0)])
    assert join(parts, CONTEXT, 2, may_be_none=False).spans == found.spans[:2]


def test_no_answer_is_the_least_of_all_windows_and_has_its_share() -> None:
    parts = [part(1.0, (2.0, "two")), part(3.0, (0.5, "six"))]
    found = join(parts, CONTEXT, 10, may_be_none=True)
    assert (found.null_score, found.null_score_diff) == (1.0, -1.0)
    total = math.exp(2.0) + math.exp(0.5) + math.exp(1.0)
    assert found.null_probability == pytest.approx(math.exp(1.0) / total)
    assert found.probabilities[0] == pytest.approx(math.exp(2.0) / total)


def test_spans_lose_the_white_space_around_them_and_blank_ones_are_none() -> None:
    at = CONTEXT.index(" two ")
    parts = [{"null": 0.0, "spans": [[3.0, at, at + 5], [2.0, at, at + 1], [1.0, at + 1, at + 4]]}]
    found = join(parts, CONTEXT, 10, may_be_none=False)
    assert found.spans == [Span(3.0, at + 1, at + 4)]
    blank = join([{"null": 0.0, "spans": [[2.0, at, at + 1]]}], CONTEXT, 10, may_be_none=True)
    assert (blank.spans, blank.null_score_diff, blank.null_probability) == ([], None, 1.0)
