"""Which files and data sets a config names, and the records of one split of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bigft.config.errors import BadInput, Problem
from bigft.config.sections import DataConfig
from bigft.data.formats import ReadOptions, stream_hub, stream_records
from bigft.data.records import Record

SPLITS = ("train", "validation", "test")


def files_of(data: DataConfig, split: str) -> Sequence[str]:
    files: Sequence[str] = getattr(data, f"{split}_file")
    return files


def input_files(data: DataConfig) -> list[str]:
    """Every file that the config names, directories opened up: what a fingerprint covers.

    Raises BadInput, naming its key, for a config without training, validation or test data.
    """
    named = [file for split in SPLITS for file in files_of(data, split)]
    if not named and data.dataset_name is None:
        raise BadInput(
            Problem("data.train_file", "no data is named", "give train_file or dataset_name")
        )
    local = [data.dataset_name] if data.dataset_name and Path(data.dataset_name).exists() else []
    return [str(path) for name in [*named, *local] for path in _opened(Path(name))]


def _opened(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(inner for inner in path.rglob("*") if inner.is_file())
    # A missing file stays in no fingerprint: the reader names it with the nearest one.
    return [path] if path.is_file() else []


def read_split(data: DataConfig, split: str) -> list[Record] | None:
    """The records of one split at once; None if the config names none.

    Raises BadInput with the problems of its files.
    """
    records = stream_split(data, split)
    return None if records is None else list(records)


def stream_split(data: DataConfig, split: str, *, of_words: bool = True) -> Iterator[Record] | None:
    """The records of one split, read as they are asked for; None if the config names none.

    of_words: whether a file may be one of labelled words, where its format is to be found.

    The stream ends with BadInput if its files have problems.
    """
    options = ReadOptions(
        format=data.format,
        text_column_name=data.text_column_name,
        label_column_name=data.label_column_name,
        sample_by=data.sample_by,
        of_words=of_words,
        max_samples=data.max_train_samples if split == "train" else data.max_eval_samples,
    )
    if data.dataset_name is not None:
        if split not in hub_splits(data):
            return None
        return stream_hub(
            data.dataset_name, data.dataset_config_name, data.dataset_revision, split, options
        )
    files = files_of(data, split)
    return stream_records(files, options) if files else None


def hub_splits(data: DataConfig) -> list[str]:
    """The splits of data.dataset_name. Raises BadInput if it cannot be found."""
    import datasets

    try:
        return list(
            datasets.get_dataset_split_names(
                data.dataset_name, data.dataset_config_name, revision=data.dataset_revision
            )
        )
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        why = " ".join(str(error).split())
        raise BadInput(
            Problem(
                "data.dataset_name",
                f"{data.dataset_name!r} cannot be loaded ({why})",
                "give a hub id, or a directory that `datasets` can load",
            )
        ) from error
