"""A file of answers that the official scorers of a task's data sets read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from bigft.config.errors import BadInput, Problem

if TYPE_CHECKING:
    from bigft.data.records import Record
    from bigft.tasks.protocol import Prediction, Task

OPTION = "--predictions"


class Submission:
    """Raises BadInput where the task of this name has no such file, or it cannot be written."""

    def __init__(self, file: Path, task_name: str) -> None:
        from bigft.tasks import TASKS
        from bigft.tasks.protocol import Submits

        if not issubclass(TASKS[task_name], Submits):
            known = [name for name, task in TASKS.items() if issubclass(task, Submits)]
            what = f"given, but task {task_name} has no file that official scorers read"
            fix = f"leave it out ({', '.join(known)} has one); `bigft predict` writes answers"
            raise BadInput(Problem(OPTION, what, fix))
        if file.is_dir() or not file.absolute().parent.is_dir():
            raise self._unwritten(file, "no file in a directory that is there")
        self._file = file
        self._answers: dict[str, tuple[int, str]] = {}  # by key, with the record's place
        self._problems: list[Problem] = []

    def add(self, task: Task, record: Record, prediction: Prediction) -> None:
        from bigft.tasks.protocol import Submits

        assert isinstance(task, Submits)
        key, answer = task.submission(record, prediction)
        if key in self._answers:
            what = f"the id {key} stands twice in the split, and the file holds one answer of each"
            self._problems.append(Problem(record.where, what, "evaluate its files one by one"))
        self._answers[key] = record.index, answer

    def write(self) -> None:
        """In the order of the records. Raises BadInput for ids that stand twice."""
        if self._problems:
            raise BadInput(self._problems)
        in_order = sorted(self._answers.items(), key=lambda item: item[1][0])
        text = json.dumps({key: answer for key, (_, answer) in in_order}, ensure_ascii=False)
        try:
            self._file.write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise self._unwritten(self._file, str(error.strerror)) from error

    @staticmethod
    def _unwritten(file: Path, why: str) -> BadInput:
        return BadInput(Problem(f"{OPTION} {file}", why, "name another file"))
