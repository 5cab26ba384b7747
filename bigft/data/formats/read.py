"""The table of formats, and the way from paths to Records that know their file and line."""

from __future__ import annotations

from collections.abc import Sequence

from bigft.config.errors import BadInput, Problem
from bigft.data.formats.arrow import read_datasets, read_parquet
from bigft.data.formats.base import (
    MAX_PROBLEMS,
    Reader,
    ReadOptions,
    Row,
    capped,
    check_path,
)
from bigft.data.formats.columns import read_conll, read_conllu
from bigft.data.formats.detect import detect_format
from bigft.data.formats.json_rows import read_json, read_jsonl
from bigft.data.records import Record

FORMATS: dict[str, Reader] = {
    "conll": read_conll,
    "conllu": read_conllu,
    "json": read_json,
    "jsonl": read_jsonl,
    "parquet": read_parquet,
    "datasets": read_datasets,
}


def read_records(files: Sequence[str], options: ReadOptions) -> list[Record]:
    """The records of all files in order; their indices run on over the files.

    Raises BadInput with up to MAX_PROBLEMS problems of each file.
    """
    records: list[Record] = []
    problems: list[Problem] = []
    for file in files:
        if len(records) == options.max_samples:
            break
        found: list[Problem] = []
        try:
            _read_file(file, options, records, found)
        except BadInput as error:
            found += error.problems
        except OSError as error:
            found.append(Problem(file, f"cannot be read ({error.strerror})"))
        problems += capped(found, file)
    if problems:
        raise BadInput(problems)
    return records


def _read_file(
    file: str, options: ReadOptions, records: list[Record], problems: list[Problem]
) -> None:
    name = detect_format(file) if options.format == "auto" else options.format
    check_path(file, directory=name == "datasets")
    before = len(records)
    for item in FORMATS[name](file, options):
        if isinstance(item, Row):
            records.append(Record(len(records), item.fields, file, item.line))
            if len(records) == options.max_samples:
                break
        else:
            problems.append(item)
            if len(problems) > MAX_PROBLEMS:
                break
    if len(records) == before and not problems:
        problems.append(Problem(file, f"no sample in it (read as {name})"))
