"""`bigft predict RUN --chat`: a talk in the terminal, or over a pipe, a line a turn."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any

from bigft.config.errors import BadInput, Problem
from bigft.runtime.seeding import address

if TYPE_CHECKING:
    from bigft.training.trained import Trained

HELP = "/system TEXT sets a system prompt; /reset forgets what was said; /exit or Ctrl-D ends"


def chat(trained: Trained) -> int:
    """Answers every line, with all that was said before in mind; words appear as they come.

    Raises BadInput for a task or a model that does not talk.
    """
    from bigft.data.records import Record
    from bigft.tasks.causal_lm import CausalLM

    task = trained.task
    if not isinstance(task, CausalLM):
        what = f"this run's task is {trained.config.task.name}"
        raise BadInput(Problem("--chat", what, "give --text: only causal-lm talks"))
    form = task.text_record("", 0).fields["form"]
    if form == "prompt" and not task.renderer.has_template:
        what = "the run's tokenizer has no chat template"
        raise BadInput(Problem("--chat", what, "give --text, or train with data.chat_template"))
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
            record = Record(turn, {"messages": said, "form": form}, "chat", turn + 1)
            try:
                answer = _answer(trained, task, record)
            except BadInput as refused:  # by the template: the talk goes on without this line
                print(refused, file=sys.stderr)
                continue
            messages = [*said[len(system) :], {"role": "assistant", "content": answer}]
    return 0


def _answer(trained: Trained, task: Any, record: Any) -> str:
    from transformers import TextStreamer

    (feature,) = task.encode_prompt(record)
    settings: dict[str, Any] = {}
    if task.generation.num_beams == 1:  # beams are not decided before the end
        settings["streamer"] = TextStreamer(
            task.tokenizer,
            skip_prompt=True,
            skip_special_tokens=True,
            clean_up_tokenization_spaces=False,
        )
    draw = address(trained.config.train.seed, "chat", record.index)
    (answer,) = task.write(
        trained.model, [feature.input_ids_T], [draw], trained.world.device, **settings
    )
    if not settings:
        print(answer)
    sys.stdout.flush()
    return str(answer)


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
