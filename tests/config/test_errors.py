"""What a library says reaches the user whole, in one line."""

from __future__ import annotations

import pytest

from bigft.config.errors import MAX_REASON, reason


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
