"""A busy machine breaks no test: none waits for less than PATIENCE where it fails afterwards.

Bounds in plain numbers are looked for in `timeout=` and in the calls that wait. Such a number is
right only where the test wants the time to pass, and there it has a name.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from conftest import REPOSITORY
from waiting import PATIENCE

WAIT = {"wait", "wait_for", "join", "communicate", "exception", "result", "poll"}


def short_waits(source: str) -> Iterator[int]:
    """Lines on which a call's time-out is written as a number below PATIENCE."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        bounds = [word.value for word in node.keywords if word.arg == "timeout"]
        if isinstance(node.func, ast.Attribute) and node.func.attr in WAIT:
            bounds += node.args[:1]
        for bound in bounds:
            number = bound.value if isinstance(bound, ast.Constant) else None
            if isinstance(number, int | float) and number < PATIENCE:
                yield node.lineno


def test_no_test_waits_for_less_than_patience() -> None:
    found = [
        f"{path.relative_to(REPOSITORY)}:{line}"
        for path in sorted(Path(REPOSITORY, "tests").rglob("*.py"))
        for line in short_waits(path.read_text())
    ]
    assert not found, f"take PATIENCE of tests/waiting.py: {', '.join(found)}"


def test_short_waits_are_found() -> None:
    planted = """\
process.wait(2)
process.communicate(timeout=60)
subprocess.run(words, timeout=1.5)
thread.join(PATIENCE)
", ".join(words)
process.wait()
future.exception(10)
"""
    assert [*short_waits(planted)] == [1, 2, 3, 7]
