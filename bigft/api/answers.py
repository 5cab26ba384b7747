"""The answers of a run's model: what `bigft predict` writes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from bigft.config.errors import Problem, collect

if TYPE_CHECKING:
    from bigft.data.records import Record
    from bigft.tasks.protocol import Prediction, Task
    from bigft.training.trained import Trained

SETTABLE = "task.generation."


class Line(NamedTuple):
    """value: a text, or an object.  file, number: where it stands."""

    value: str | dict[str, Any]
    file: str
    number: int


def answered(
    trained: Trained, lines: Iterable[Line], batch_size: int | None, problems: list[Problem]
) -> Iterator[Prediction]:
    """One answer for each line that the task can use, in order, as the lines come; of the others,
    the problems. batch_size: rows of a forward; None: the run's."""
    batch_size = batch_size or trained.config.train.per_device_eval_batch_size
    with collect(problems):
        yield from trained.predict(_records(trained.task, lines, problems), batch_size)


def not_text(texts: Sequence[Any], where: str) -> list[Problem]:
    """Of texts those with halves of characters in them."""
    return [
        Problem(where, f"{text!r} is not UTF-8", "write it in UTF-8")
        for text in texts
        if isinstance(text, str) and any("\ud800" <= character <= "\udfff" for character in text)
    ]


def _records(task: Task, lines: Iterable[Line], problems: list[Problem]) -> Iterator[Record]:
    """The lines that the task can use, numbered; of the others, the problems."""
    from bigft.tasks.protocol import Prompts

    assert isinstance(task, Prompts)  # or `Trained.predict` would have refused it
    index = 0
    for line in lines:
        with collect(problems):
            yield task.prompt(line.value, index, line.file, line.number)
            index += 1
