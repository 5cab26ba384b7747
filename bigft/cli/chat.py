"""`bigft predict RUN --chat`: a conversation in the terminal, or over a pipe, a line a turn."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from io import TextIOWrapper
from typing import TYPE_CHECKING

from bigft.config.errors import BadInput, Problem

if TYPE_CHECKING:
    from bigft.training.trained import Trained

HELP = "/system TEXT sets a system prompt; /reset forgets what was said; /exit or Ctrl-D ends"


def chat(trained: Trained) -> int:
    """Answers every line, with all that was said before in mind; words appear as they come.

    Raises BadInput for a task or a model that does not talk.
    """
    from bigft.runtime.seeding import address
    from bigft.tasks.protocol import Chats

    task = trained.task
    if not isinstance(task, Chats):
        what = f"this run's task is {trained.config.task.name}"
        raise BadInput(Problem("--chat", what, "give --text: only causal-lm talks"))
    task.check_chat()
    system: list[dict[str, str]] = []
    messages: list[dict[str, str]] = []
    for turn, line in enumerate(_lines()):
        if line == "/exit":
            break
        command, _, text = line.partition(" ")
        if command == "/system":
            system = [{"role": "system", "content": text.strip()}] if text.strip() else []
            messages = []
        elif line == "/reset":
            messages = []
        elif line:
            said = [*system, *messages, {"role": "user", "content": line}]
            draw = address(trained.config.train.seed, "chat", turn)
            try:
                answer = task.reply(trained.model, said, draw, _write)
            except BadInput as refused:  # by the template: the talk goes on without this line
                print(refused, file=sys.stderr)
                continue
            messages = [*said[len(system) :], {"role": "assistant", "content": answer}]
    return 0


def _write(text: str) -> None:
    print(text, end="", flush=True)


def _lines() -> Iterator[str]:
    """What is typed, line by line, until the end of the input."""
    if isinstance(sys.stdin, TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # a byte that is no text ends no talk
    if not sys.stdin.isatty():
        yield from (line.strip() for line in sys.stdin)
        return
    print(HELP, file=sys.stderr)
    while True:
        try:
            yield input("> ").strip()
        except EOFError:
            return
