"""Data sets of the hub, and local directories that look like one.

Their JSON and Parquet files are read as if a config named them: `datasets` guesses types, and
makes 42 of "42" in a column of mixed ones. Everything else is loaded by `datasets`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigft.config.errors import BadInput, Problem
from bigft.data.formats.arrow import BadValue, class_namer, dataset_rows
from bigft.data.formats.base import MAX_PROBLEMS, ReadOptions
from bigft.data.formats.detect import SUFFIXES
from bigft.data.formats.files import data_suffix, not_fetched
from bigft.data.formats.read import stream_records
from bigft.data.records import Record

if TYPE_CHECKING:
    import datasets

SAVED = ("state.json", "dataset_dict.json")
OURS = ("json", "jsonl", "parquet")
# What tells `datasets` to read only a part of such files, or another encoding.
NOT_OURS = {"field": None, "encoding": "utf-8", "columns": None, "filters": None}


def hub_splits(dataset_name: str, config_name: str | None, revision: str | None) -> list[str]:
    """The splits of a data set. Raises BadInput if it cannot be found."""
    import datasets

    wanted = "give a hub id, or a directory that `datasets` can load"
    with _found(dataset_name, wanted), _configured(dataset_name, config_name, revision):
        splits = datasets.get_dataset_split_names(dataset_name, config_name, revision=revision)
    return list(map(str, splits))


def hub_version(dataset_name: str, config_name: str | None, revision: str | None) -> str:
    """What `datasets` tells one content of a data set from another by: its commit, on the hub.

    Raises BadInput if it cannot be found.
    """
    return str(_builder(dataset_name, config_name, revision).hash)


def stream_hub(
    dataset_name: str,
    config_name: str | None,
    revision: str | None,
    split: str,
    options: ReadOptions,
) -> Iterator[Record]:
    """Yields one split of a data set of the hub, or of a directory that looks like one.

    A record's file is the one that it came from, or `dataset_name[split]` where `datasets` reads.
    Raises BadInput naming the key of `data` to fix.
    """
    builder = _builder(dataset_name, config_name, revision)
    urls = list(dict(builder.config.data_files or {}).get(split, ()))
    if pointers := [problem for url in urls for problem in not_fetched(url)]:
        raise BadInput(pointers)
    files = _files(builder, urls)
    if files is None:
        yield from _loaded(dataset_name, config_name, revision, split, options)
    else:
        yield from _named(stream_records(files, replace(options, format="auto")), builder, options)


def _builder(
    dataset_name: str, config_name: str | None, revision: str | None
) -> datasets.DatasetBuilder:
    import datasets

    if any(Path(dataset_name, name).is_file() for name in SAVED):
        found = f"{dataset_name!r} is a directory that `save_to_disk` wrote"
        raise BadInput(Problem("data.dataset_name", found, "name it as data.train_file"))
    with _found(dataset_name), _configured(dataset_name, config_name, revision):
        return datasets.load_dataset_builder(dataset_name, config_name, revision=revision)


@contextmanager
def _found(dataset_name: str, fix: str = "") -> Iterator[None]:
    """An unknown name, configuration or revision; no network; files that it cannot read."""
    import datasets

    try:
        yield
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        found = f"{dataset_name!r} cannot be loaded ({' '.join(str(error).split())})"
        fix = fix or "fix it, data.dataset_config_name or data.dataset_revision"
        pointers = not_fetched(dataset_name)
        raise BadInput(pointers or Problem("data.dataset_name", found, fix)) from error


@contextmanager
def _configured(dataset_name: str, config_name: str | None, revision: str | None) -> Iterator[None]:
    """A data set of several configurations of which none is named, or one that it has not."""
    import datasets

    try:
        yield
    except ValueError as error:
        names: list[str] = []
        with suppress(OSError, ValueError, datasets.exceptions.DatasetsError):
            names = datasets.get_dataset_config_names(dataset_name, revision=revision)
        if config_name in names or (config_name is None and len(names) < 2) or not names:
            raise
        found = f"{dataset_name!r} has the configurations {', '.join(names)}"
        if config_name is not None:
            found = f"no {config_name!r}; {found}"
        raise BadInput(Problem("data.dataset_config_name", found, "name one of them")) from error


def _files(builder: Any, urls: list[str]) -> list[str] | None:
    """A split's files, fetched, where they are all ours to read; None where `datasets` has to."""
    import datasets

    config = builder.config
    if not urls or any(getattr(config, name, other) != other for name, other in NOT_OURS.items()):
        return None
    if any(SUFFIXES.get(data_suffix(url)) not in OURS for url in urls):
        return None
    with _found(builder.dataset_name):
        files = datasets.DownloadManager().download(urls)
    if any(not Path(url).exists() for url in urls):
        # What `datasets` keeps is where it finds the data set, and its commit, without a network.
        with suppress(datasets.exceptions.DatasetsError, ValueError):
            builder.download_and_prepare()
    return list(map(str, files))


def _named(records: Iterator[Record], builder: Any, options: ReadOptions) -> Iterator[Record]:
    """The records with the class names that the data set's card declares."""
    features = builder.info.features or {}
    namers = {name: namer for name in features if (namer := class_namer(features[name]))}
    problems: list[Problem] = []
    for record in records:
        fields = dict(record.fields)
        for name in namers.keys() & fields.keys():
            try:
                fields[name] = namers[name](fields[name])
            except BadValue as error:
                problems.append(Problem(f"{record.where}: column {name}", *error.args))
        yield replace(record, fields=fields)
        if len(problems) >= MAX_PROBLEMS:
            break
    if problems:
        raise BadInput(problems)


def _loaded(
    dataset_name: str,
    config_name: str | None,
    revision: str | None,
    split: str,
    options: ReadOptions,
) -> Iterator[Record]:
    import datasets

    with _found(dataset_name):
        splits = datasets.load_dataset(dataset_name, config_name, revision=revision)
    if split not in splits:
        found = f"{dataset_name!r} has no split {split}; it has {', '.join(map(str, splits))}"
        raise BadInput(Problem("data.dataset_name", found, "name its files instead"))
    rows = splits[split]
    if options.max_samples is not None:
        rows = rows.select(range(min(options.max_samples, len(rows))))
    file = f"{dataset_name}[{split}]"
    problems: list[Problem] = []
    for row in dataset_rows(file, rows, options):
        if isinstance(row, Problem):
            problems.append(row)
            if len(problems) >= MAX_PROBLEMS:
                break
        else:
            yield Record(row.line - 1, row.fields, file, row.line, row.notes)
    if problems:
        raise BadInput(problems)
