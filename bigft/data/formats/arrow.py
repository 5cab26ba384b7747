"""Parquet files, directories of `datasets.save_to_disk`, and data sets of the hub.

Class numbers become their names where the data set knows them. A row's line is its 1-based number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigft.config.errors import BadInput, Problem
from bigft.data.formats.base import ReadOptions, Row
from bigft.data.records import Record

ROWS_AT_ONCE = 1024

if TYPE_CHECKING:
    import datasets


def read_parquet(path: str, options: ReadOptions) -> Iterator[Row | Problem]:
    import datasets
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            features = datasets.Features.from_arrow_schema(file.schema_arrow)
            rows = (row for batch in file.iter_batches(ROWS_AT_ONCE) for row in batch.to_pylist())
            yield from _named(rows, features)
    except (pyarrow.ArrowException, OSError) as error:
        raise BadInput(Problem(path, f"no readable Parquet file ({error})")) from error


def read_datasets(path: str, options: ReadOptions) -> Iterator[Row | Problem]:
    import datasets

    try:
        loaded = datasets.load_from_disk(path)
    except FileNotFoundError as error:
        found = f"no directory that `save_to_disk` wrote ({error})"
        raise BadInput(Problem(path, found)) from error
    if isinstance(loaded, datasets.DatasetDict):
        splits = [str(Path(path) / str(split)) for split in loaded]
        raise BadInput(Problem(path, "a directory of splits", f"name one: {', '.join(splits)}"))
    yield from _named(loaded, loaded.features)


def stream_hub(
    dataset_name: str,
    config_name: str | None,
    revision: str | None,
    split: str,
    options: ReadOptions,
) -> Iterator[Record]:
    """Yields one split of a data set of the hub, or of a directory that looks like one.

    A record's file is `dataset_name[split]`. Raises BadInput naming the key of `data` to mend.
    """
    splits = _load_hub(dataset_name, config_name, revision)
    if split not in splits:
        found = f"{dataset_name!r} has no split {split}; it has {', '.join(map(str, splits))}"
        raise BadInput(Problem("data.dataset_name", found, "name its files instead"))
    rows = splits[split]
    if options.max_samples is not None:
        rows = rows.select(range(min(options.max_samples, len(rows))))
    file = f"{dataset_name}[{split}]"
    for row in _named(rows, rows.features):
        yield Record(row.line - 1, row.fields, file, row.line)


def _load_hub(
    dataset_name: str, config_name: str | None, revision: str | None
) -> datasets.DatasetDict:
    import datasets

    saved = ("state.json", "dataset_dict.json")
    if any(Path(dataset_name, name).is_file() for name in saved):
        found = f"{dataset_name!r} is a directory that `save_to_disk` wrote"
        raise BadInput(Problem("data.dataset_name", found, "name it as data.train_file"))
    try:
        return datasets.load_dataset(dataset_name, config_name, revision=revision)
    # An unknown name, configuration or revision; no network; files that it cannot read.
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        found = f"{dataset_name!r} cannot be loaded ({' '.join(str(error).split())})"
        mend = "mend it, data.dataset_config_name or data.dataset_revision"
        raise BadInput(Problem("data.dataset_name", found, mend)) from error


def _named(rows: Iterable[Any], features: datasets.Features) -> Iterator[Row]:
    name = _namer(features)
    for number, row in enumerate(rows, 1):
        yield Row(number, name(row) if name else row)


def _namer(feature: Any) -> Callable[[Any], Any] | None:
    """What turns class numbers within a value into names; None if such values hold none.

    A number of -1 is what `datasets` writes where there is no class: null.
    """
    import datasets

    if isinstance(feature, datasets.ClassLabel):
        names = dict(enumerate(feature.names))
        return lambda value: None if value is None or value == -1 else names[value]
    if isinstance(feature, datasets.List | datasets.LargeList):
        one = _namer(feature.feature)
        return one and (lambda value: value and [one(element) for element in value])
    if isinstance(feature, dict):
        fields = {key: name for key in feature if (name := _namer(feature[key]))}
        return lambda value: value and value | {key: fields[key](value[key]) for key in fields}
    return None
