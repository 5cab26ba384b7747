"""The one error a user can cause: what is wrong, where, and how to fix it. Exit code 2."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from textwrap import shorten

MAX_REASON = 600  # characters
MAX_ALIKE = 3  # messages for one thing that is wrong in several lines of data
LINE = re.compile(r":\d+")


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing to fix.

    where: "file:line", "file:line: section.key" or the name of an option.
    what: what is wrong, with the value found.
    fix: what to write instead; "" where `what` already says it.
    """

    where: str
    what: str
    fix: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f"; {self.fix}" if self.fix else "")


class BadInput(Exception):
    """Input that bigft refuses; str() is one `where: what; how to fix it` line per problem, and
    one for all that are alike but for their line, where these are more than MAX_ALIKE.

    Every verb turns it into those lines on stderr and exit code 2.
    """

    def __init__(self, problems: Problem | Sequence[Problem]) -> None:
        several = [problems] if isinstance(problems, Problem) else problems
        self.problems = list(dict.fromkeys(several))
        super().__init__("\n".join(_lines(self.problems)))

    def __reduce__(self) -> tuple[type[BadInput], tuple[list[Problem]]]:
        return BadInput, (self.problems,)  # whole again in another process


def _lines(problems: Sequence[Problem]) -> Iterator[str]:
    alike: dict[tuple[str, str], list[str]] = {}
    for problem in problems:
        alike.setdefault((problem.what, problem.fix), []).append(problem.where)
    for problem in problems:
        first, *others = alike[problem.what, problem.fix]
        if len(others) < MAX_ALIKE or not LINE.search(problem.where):
            yield str(problem)
        elif problem.where == first:
            shown = ", ".join(others[:MAX_ALIKE]) + ", ..." * (len(others) > MAX_ALIKE)
            yield f"{problem} ({len(others)} more alike: {shown})"


@contextmanager
def collect(problems: list[Problem]) -> Iterator[None]:
    """What the block refuses is appended to `problems`, so that more can be looked at first."""
    try:
        yield
    except BadInput as refused:
        problems += refused.problems


def reason(error: BaseException, *, first_line: bool = False) -> str:
    """What a library says, all of it, in one line; of a long text the beginning.

    first_line: only that, where the lines below list what there is, or how it came about.
    """
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    if first_line:
        text = next(iter(text.strip().splitlines()), "")
    kind = "" if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: "
    return kind + (shorten(text, MAX_REASON, placeholder=" …") or "no reason given")
