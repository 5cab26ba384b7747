"""The records of a split as the config's `data` section names them."""

from __future__ import annotations

from pathlib import Path

from bigft.config.errors import BadInput, Problem
from bigft.config.sections import DataConfig
from bigft.data.formats.arrow import hub_splits, read_hub
from bigft.data.formats.base import ReadOptions, check_path
from bigft.data.formats.read import read_records
from bigft.data.records import Record


def read_split(data: DataConfig, split: str) -> list[Record] | None:
    """The records of "train", "validation" or "test"; None where the config has no such split.

    Raises BadInput with what is wrong with the files, or the data set of the hub.
    """
    options = ReadOptions(
        data.format,
        data.text_column_name,
        data.label_column_name,
        data.max_train_samples if split == "train" else None,
    )
    if data.dataset_name is not None:
        hub = (data.dataset_name, data.dataset_config_name, data.dataset_revision)
        if split != "train" and split not in hub_splits(*hub):
            return None
        return read_hub(*hub, split, options)
    files = getattr(data, f"{split}_file")
    return read_records(files, options) if files else None


def input_files(data: DataConfig) -> list[str]:
    """Every local file that `read_split` reads. Raises BadInput for each that is missing."""
    paths = [*data.train_file, *data.validation_file, *data.test_file]
    if data.dataset_name is not None and Path(data.dataset_name).is_dir():
        paths.append(data.dataset_name)
    files: list[str] = []
    problems: list[Problem] = []
    for path in paths:
        if Path(path).is_dir():
            files += sorted(str(file) for file in Path(path).rglob("*") if file.is_file())
            continue
        try:
            check_path(path, directory=False)
            files.append(path)
        except BadInput as error:
            problems += error.problems
    if problems:
        raise BadInput(problems)
    return files
