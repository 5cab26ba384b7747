"""What a library says reaches the user whole, in one line."""

from __future__ import annotations

import pytest

from bigft.config.errors import MAX_REASON, BadInput, Problem, reason


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("Target modules not found.\n\n  Check them:\n\t- w1\n"),
         "Target modules not found. Check them: - w1"),
        (RuntimeError("Error(s) in loading:\n\tsize mismatch"),
         "RuntimeError: Error(s) in loading: size mismatch"),
        (KeyError("no\nsuch key"), "KeyError: no such key"),
        (OSError(2, "No such file", "a b"), "[Errno 2] No such file: 'a b'"),
        (TypeError(), "TypeError: no reason given"),
    ],
)  # fmt: skip
def test_every_line_of_an_error_is_told_in_one(error: Exception, said: str) -> None:
    assert reason(error) == said


def test_of_a_long_error_the_beginning_is_told() -> None:
    told = reason(ValueError("\n".join(f"layer {number}" for number in range(1000))))
    assert told.startswith("layer 0 layer 1 ")
    assert MAX_REASON - 10 < len(told) <= MAX_REASON
    assert told.endswith(" …")


def test_problems_that_differ_in_their_place_only_are_told_once_and_counted() -> None:
    alike = [Problem(f"a:{line}", "no label", "write one") for line in range(1, 6)]
    refused = BadInput([Problem("b", "not there"), *alike, Problem("a:3", "no text")])
    assert str(refused).splitlines() == [
        "b: not there",
        "a:1: no label; write one (4 more alike: a:2, a:3, a:4, ...)",
        "a:3: no text",
    ]
    assert len(refused.problems) == 7


def test_a_few_problems_are_told_each_in_its_place_and_the_same_one_once() -> None:
    problems = [Problem(f"a:{line}", "no label") for line in (1, 2, 3, 3)]
    assert str(BadInput(problems)).splitlines() == [
        "a:1: no label",
        "a:2: no label",
        "a:3: no label",
    ]
