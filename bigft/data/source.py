"""Which files and data sets a config names, and the records of one split of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bigft.config.errors import BadInput, Problem, collect
from bigft.config.fields import split_key
from bigft.config.sections import DataConfig
from bigft.config.tasks import Reads
from bigft.data.formats import ReadOptions, hub_splits, hub_version, stream_hub, stream_records
from bigft.data.formats.files import check_is_regular
from bigft.data.records import Record

SPLITS = ("train", "validation", "test")


def files_of(data: DataConfig, split: str) -> Sequence[str]:
    files: Sequence[str] = getattr(data, f"{split}_file")
    return files


def input_files(data: DataConfig) -> list[str]:
    """Every file that the config names, directories opened up: what a fingerprint covers.

    Raises BadInput, naming its key, for a config without training, validation or test data, and
    for files whose content no fingerprint can hold: pipes.
    """
    named = [file for split in SPLITS for file in files_of(data, split)]
    if not named and data.dataset_name is None:
        raise BadInput(
            Problem("data.train_file", "no data is named", "give train_file or dataset_name")
        )
    local = [data.dataset_name] if data.dataset_name and Path(data.dataset_name).exists() else []
    problems: list[Problem] = []
    files: list[str] = []
    for name in [*named, *local]:
        with collect(problems):
            files += map(str, _opened(Path(split_key(name)[0])))
    if problems:
        raise BadInput(problems)
    return files


def _opened(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(inner for inner in path.rglob("*") if inner.is_file())
    # A missing file stays in no fingerprint: the reader names it with the nearest one.
    if not path.exists():
        return []
    check_is_regular(str(path))
    return [path]


def version_of(data: DataConfig) -> str | None:
    """Which content of a data set of the hub is read; None where the config names none, or one
    whose files are `input_files`.

    Raises BadInput if it cannot be found.
    """
    if data.dataset_name is None or Path(data.dataset_name).exists():
        return None
    return hub_version(data.dataset_name, data.dataset_config_name, data.dataset_revision)


def splits_of(data: DataConfig) -> list[str]:
    """The splits of data.dataset_name. Raises BadInput if it cannot be found."""
    assert data.dataset_name is not None
    return hub_splits(data.dataset_name, data.dataset_config_name, data.dataset_revision)


def read_split(
    data: DataConfig, split: str, reads: Reads, *, columns: frozenset[str] | None = None
) -> list[Record] | None:
    """The records of one split at once; None if the config names none.

    columns: the fields that the task may use; None: any.
    Raises BadInput with the problems of its files.
    """
    records = stream_split(data, split, reads, columns=columns)
    return None if records is None else list(records)


def stream_split(
    data: DataConfig,
    split: str,
    reads: Reads,
    *,
    columns: frozenset[str] | None = None,
) -> Iterator[Record] | None:
    """The records of one split, read as they are asked for; None if the config names none.

    reads: what the task's model is given: only for one that reads words a file may be one of
        labelled words, where its format is to be found.
    columns: the fields that the task may use; None: any.

    The stream ends with BadInput if its files have problems.
    """
    options = ReadOptions(
        format=data.format,
        text_column_name=data.text_column_name,
        label_column_name=data.label_column_name,
        sample_by=data.sample_by,
        of_words=reads == "words",
        max_samples=data.max_train_samples if split == "train" else data.max_eval_samples,
        columns=columns,
    )
    if data.dataset_name is not None:
        name = (data.dataset_name, data.dataset_config_name, data.dataset_revision)
        return stream_hub(*name, split, options) if split in splits_of(data) else None
    files = files_of(data, split)
    return stream_records(files, options) if files else None


def stream_splits(
    data: DataConfig, reads: Reads, *, columns: frozenset[str] | None = None
) -> dict[str, Iterator[Record]]:
    """The same of every split that the config names."""
    streams = {split: stream_split(data, split, reads, columns=columns) for split in SPLITS}
    return {split: records for split, records in streams.items() if records is not None}
