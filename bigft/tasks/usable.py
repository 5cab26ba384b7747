"""The records of a split that a task can use, and what becomes of the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from bigft.config.errors import BadInput, Problem, collect
from bigft.config.sections import OnBadRecord
from bigft.data.formats.base import MAX_PROBLEMS, capped
from bigft.data.records import Record

SHOWN = 10  # records that a note names

Convert = Callable[[Record], Iterable[Record]]
"""The samples in a record, in the task's one form. Raises BadInput if it cannot be used."""


def usable(
    records: Iterable[Record],
    convert: Convert,
    split: str,
    on_bad_record: OnBadRecord = "refuse",
    notes: list[str] | None = None,
) -> Iterator[Record]:
    """The samples in the records, numbered anew; a stream.

    on_bad_record: what `convert` refuses is collected, or dropped: then `notes` takes a sentence
        that counts and names it. What is wrong with a whole file, with a key or with every record
        is always refused.

    Raises BadInput at its end, with what the reader refuses and up to MAX_PROBLEMS problems.
    """
    read = number = 0
    dropped: list[Problem] = []  # the first of each record's
    problems: list[Problem] = []
    refused: list[Problem] = []  # by the reader, at its end
    with collect(refused):
        for record in records:
            read += 1
            try:
                samples = list(convert(record))
            except BadInput as error:
                of_it = all(
                    problem.where.startswith(f"{record.file}:") for problem in error.problems
                )
                if of_it and on_bad_record == "drop":
                    dropped.append(error.problems[0])
                    continue
                problems += error.problems
                if len(problems) > MAX_PROBLEMS:
                    break
                continue
            for sample in samples:
                yield replace(sample, index=number)
                number += 1
    if dropped and not number:  # a mistake in the config, more likely than in each record
        problems += dropped
    elif dropped and notes is not None:
        notes.append(_dropped(dropped, read, split))
    if problems:
        problems = capped(list(dict.fromkeys(problems)), problems[0].where.partition(":")[0])
    if refused or problems:
        raise BadInput([*refused, *problems])


def _dropped(problems: list[Problem], read: int, split: str) -> str:
    shown = "; ".join(f"{problem.where}: {problem.what}" for problem in problems[:SHOWN])
    more = ", ..." * (len(problems) > SHOWN)
    known = f"{len(problems)} of {read} records of {split}"
    return f"{known} are dropped (data.on_bad_record): {shown}{more}"
