"""Which task data is meant for, and how it is read: what the tasks' own readers accept."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, TypeAlias

from pydantic import TypeAdapter

from bigft.config.errors import BadInput, Problem, collect
from bigft.config.load import load_config
from bigft.config.sections import RunConfig
from bigft.config.tasks import TaskConfig
from bigft.data.discover import Found
from bigft.data.formats import ReadOptions, detect_format, stream_records
from bigft.data.formats.detect import has_sentences, has_table
from bigft.data.records import Record
from bigft.tasks import TASKS
from bigft.tasks.protocol import Certainty, Guess

RECORDS = 100  # of each split that are read
# What stands in a first row of samples, and not in one of names: a number, a sentence, a long text.
SAMPLE = re.compile(r"[-+\d.,]+|.*[.!?,;:\u2026\u3002\uff01\uff1f]|.{41,}", re.S)
TABLES = ("csv", "tsv")
FirstRecords: TypeAlias = Callable[[str, tuple[str, ...]], list[Record]]
OTHER_TASKS = {
    ("image",): "image-classification",
}


@dataclass(frozen=True)
class Choice:
    """task: a key of TASKS.  guess: how it reads the data."""

    task: str
    guess: Guess


@dataclass
class _Tried:
    """What came of a task: the first way in which it reads the data, or what it says against the
    likeliest one."""

    choice: Choice | None = None
    refused: tuple[Certainty, list[Problem]] | None = None
    unreadable: list[Problem] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)


def choose(found: Found, tasks: Sequence[str], given: Mapping[str, Any]) -> Choice:
    """How the data is read, and for which of the tasks.

    given: keys of the config that the user sets, by dotted name.
    Raises BadInput: the data is broken, could be meant for several tasks, or fits none.
    """
    first_records = cache(_first_records)  # each file is read once for all tasks
    tried = {task: _try(task, found, given, first_records) for task in tasks}
    where = found.files["train"][0]
    choices = [one.choice for one in tried.values() if one.choice]
    best = max((choice.guess.certainty for choice in choices), default=-1)
    choices = [choice for choice in choices if choice.guess.certainty == best]
    refused = [
        problem
        for one in tried.values()
        if one.refused and one.refused[0] > best
        for problem in one.refused[1]
    ]
    if refused:
        raise BadInput(refused)
    if not choices:
        raise BadInput(_none_fits(where, tried))
    if len(choices) > 1:
        names = [choice.task for choice in choices]
        fix = " or ".join(f"--task {name}" for name in names)
        raise BadInput(Problem(where, f"fits several tasks: {', '.join(names)}", f"say {fix}"))
    (choice,) = choices
    return choice


def _try(task: str, found: Found, given: Mapping[str, Any], first_records: FirstRecords) -> _Tried:
    result = _Tried()
    for format, records in _readings(task, found, given, first_records, result.unreadable):
        result.columns = result.columns or list(records[0].fields)
        for guess in _guesses(task, found, format, records, given):
            try:
                _read(config_of(task, found, guess, given))
            except BadInput as error:
                if result.refused is None or guess.certainty > result.refused[0]:
                    result.refused = guess.certainty, error.problems
                continue
            if result.choice is None or guess.certainty > result.choice.guess.certainty:
                result.choice = Choice(task, guess)
            break
    return result


def _guesses(
    task: str, found: Found, format: str, records: list[Record], given: Mapping[str, Any]
) -> list[Guess]:
    if given.keys() & {"data.text_column_name", "data.label_column_name"}:
        return [Guess(Certainty.KNOWN)]
    files = found.files["train"]
    is_auto = format != "parallel" and format == detect_format(files[0], _of_words(task))
    keys = {} if is_auto else {"data.format": format}
    guesses = TASKS[task].start.guesses(_together(files, format), format, records)
    return [Guess(one.certainty, keys | one.keys, one.comment) for one in guesses]


def config_of(task: str, found: Found, guess: Guess, given: Mapping[str, Any]) -> RunConfig:
    """The config that reads the first records so. Raises BadInput."""
    keys = {
        "task.name": task,
        "model.model_name_or_path": "?",
        "train.output_dir": "?",
        **{f"data.{split}_file": list(files) for split, files in found.files.items()},
        **guess.keys,
        **given,
        "data.max_train_samples": RECORDS,
        "data.max_eval_samples": RECORDS,
    }
    return load_config(
        None, [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in keys.items()]
    ).config


def _read(config: RunConfig) -> None:
    """Raises BadInput for what the task says against the first records."""
    problems: list[Problem] = []
    splits: dict[str, Any] = {}
    with collect(problems):
        splits, _ = TASKS[config.task.name].read(config)
    for records in splits.values():
        with collect(problems):
            for _ in records:
                pass
    if problems:
        raise BadInput(problems)


# -- the first records --------------------------------------------------------------------------


def _readings(
    task: str,
    found: Found,
    given: Mapping[str, Any],
    first_records: FirstRecords,
    unreadable: list[Problem],
) -> Iterator[tuple[str, list[Record]]]:
    """(format, first records) of each way to read the training data; problems of the others are
    appended to `unreadable`."""
    files = found.files["train"]
    stated = given.get("data.format", found.format)
    formats = [stated] if stated else []
    if not stated:
        with collect(unreadable):
            formats = _formats(files[0], task, unreadable)
    for format in formats:
        with collect(unreadable):
            yield format, first_records(format, tuple(_together(files, format)))


def _formats(path: str, task: str, unreadable: list[Problem]) -> list[str]:
    """What the file is for `auto`, and a table without a table's name."""
    format = detect_format(path, _of_words(task))
    formats = [format]
    if format == "conll" and not has_sentences(path):  # it would be read whole, as one
        found = "no empty line between sentences, so it is no file of labelled words"
        unreadable.append(Problem(path, found))
        formats = []
    return formats + ["tsv"] * (format in ("text", "conll") and has_table(path))


def _together(files: Sequence[str], format: str) -> Sequence[str]:
    """The first file, or the first pair."""
    return files[: 2 if format == "parallel" else 1]


def _first_records(format: str, files: tuple[str, ...]) -> list[Record]:
    used = frozenset[str]() if format in ("parquet", "datasets") else None  # nothing is refused
    first = 0 if format == "conll" else None  # or a column of numbers is refused
    options = ReadOptions(format, text_column_name=first, max_samples=RECORDS, columns=used)
    records = list(stream_records(files, options))
    names = list(records[0].fields)
    if format in TABLES and any(map(SAMPLE.fullmatch, names)):
        options = ReadOptions(format, text_column_name=0, max_samples=RECORDS)
        records = list(stream_records(files, options))
    return records


def _of_words(task: str) -> bool:
    return bool(TypeAdapter(TaskConfig).validate_python(task).reads == "words")


# -- what is said where nothing fits ------------------------------------------------------------


def _none_fits(where: str, tried: Mapping[str, _Tried]) -> list[Problem]:
    refused = [one.refused for one in tried.values() if one.refused]
    if refused:
        most = max(certainty for certainty, _ in refused)
        return [problem for certainty, those in refused if certainty == most for problem in those]
    columns = max((one.columns for one in tried.values()), key=len)
    unreadable = [problem for one in tried.values() for problem in one.unreadable]
    if not columns and unreadable:
        return unreadable
    kind = f"task {next(iter(tried))} does not take" if len(tried) == 1 else "no task takes"
    what = f"{kind} its columns: {', '.join(columns) or 'none that can be read'}"
    other = next((task for keys, task in OTHER_TASKS.items() if {*keys} <= {*columns}), "")
    looks = f"they look like {other}, which is not available yet" if other else ""
    other = "other columns: --task NAME data.text_column_name=... data.label_column_name=..."
    wants = [Problem(task, f"wants {TASKS[task].start.wants}") for task in tried]
    return [Problem(where, what, looks), *wants, Problem("bigft init", other)]
