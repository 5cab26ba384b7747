"""The table of formats, and the way from paths to Records that know their file and line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from bigft.config.errors import BadInput, Problem
from bigft.config.fields import split_key
from bigft.data.formats.arrow import read_datasets, read_parquet
from bigft.data.formats.base import (
    MAX_PROBLEMS,
    RawRow,
    Reader,
    ReadOptions,
    capped,
    check_path,
)
from bigft.data.formats.columns import read_conll, read_conllu
from bigft.data.formats.detect import detect_format
from bigft.data.formats.json_rows import read_json, read_jsonl
from bigft.data.formats.squad import read_squad
from bigft.data.formats.tables import read_csv, read_tsv
from bigft.data.formats.text import read_parallel, read_text, read_text_folder
from bigft.data.records import Record

FORMATS: dict[str, Reader] = {
    "conll": read_conll,
    "conllu": read_conllu,
    "json": read_json,
    "jsonl": read_jsonl,
    "squad": read_squad,
    "parquet": read_parquet,
    "datasets": read_datasets,
    "csv": read_csv,
    "tsv": read_tsv,
    "text": read_text,
    "textfolder": read_text_folder,
    "parallel": read_parallel,
}


FOLDERS = ("datasets", "textfolder")


def read_records(files: Sequence[str], options: ReadOptions) -> list[Record]:
    """All that `stream_records` yields, at once. Raises what it raises."""
    return list(stream_records(files, options))


def stream_records(files: Sequence[str], options: ReadOptions) -> Iterator[Record]:
    """Yields the records of all files in order, as they are read; their indices run on.

    Raises BadInput at its end, with up to MAX_PROBLEMS problems of each file. A file is not read
    on behind those.
    """
    index = 0
    problems: list[Problem] = []
    for paths in _sources(files, options.format):
        if index == options.max_samples:
            break
        before = index
        found: list[Problem] = []
        try:
            for item in _items(paths, options):
                if isinstance(item, Problem):
                    found.append(item)
                    if len(found) > MAX_PROBLEMS:
                        break
                else:
                    file = item.file or paths[0]
                    yield Record(index, item.fields, file, item.line, item.notes)
                    index += 1
                    if index == options.max_samples:
                        break
            if index == before and not found:
                name = _format(paths[0], options)
                found.append(Problem(paths[0], f"no sample in it (read as {name})"))
        except BadInput as error:
            found += error.problems
        except OSError as error:
            found.append(Problem(paths[0], f"cannot be read ({error.strerror})"))
        problems += capped(found, paths[0])
    if problems:
        raise BadInput(problems)


def _sources(files: Sequence[str], format: str) -> list[tuple[str, ...]]:
    """The files that are read together: each by itself, or in pairs."""
    if format != "parallel":
        return [(file,) for file in files]
    if len(files) % 2:
        found = f"no partner for it: {len(files)} files do not make pairs"
        raise BadInput(Problem(files[-1], found, "name source, target, source, target, ..."))
    return list(zip(files[::2], files[1::2], strict=True))


def _format(path: str, options: ReadOptions) -> str:
    if options.format != "auto":
        return options.format
    file, key = split_key(path)
    return detect_format(file, options.of_words) if key is None else "json"


def _items(paths: tuple[str, ...], options: ReadOptions) -> Iterator[RawRow | Problem]:
    name = _format(paths[0], options)
    for path in paths:
        file, key = split_key(path)
        if key is not None and name != "json":
            found = f"a key ({key}), but the format {name} has none"
            raise BadInput(Problem(path, found, "name the file alone, or set data.format=json"))
        check_path(file, directory=name in FOLDERS)
        options = replace(options, key=key)
    return FORMATS[name](*(split_key(path)[0] for path in paths), options)
