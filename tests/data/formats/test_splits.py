"""From the config's `data` section to the records of a split."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bigft.config.errors import BadInput
from bigft.config.sections import DataConfig
from bigft.data.formats import input_files, read_split


@pytest.fixture
def conll(tmp_path: Path) -> str:
    (tmp_path / "a.conll").write_text("a O\n\nb O\n")
    return str(tmp_path / "a.conll")


def test_only_the_named_splits_are_read(conll: str) -> None:
    data = DataConfig(train_file=[conll, conll], test_file=conll)
    assert [len(read_split(data, split) or []) for split in ("train", "test")] == [4, 2]
    assert read_split(data, "validation") is None


def test_max_train_samples_cuts_the_training_split_only(conll: str) -> None:
    data = DataConfig(train_file=conll, test_file=conll, max_train_samples=1)
    assert [len(read_split(data, split) or []) for split in ("train", "test")] == [1, 2]


def test_column_options_reach_the_reader(conll: str) -> None:
    data = DataConfig(train_file=conll, text_column_name=1, label_column_name=0)
    assert (read_split(data, "train") or [])[0].fields["tokens"] == ["O"]


def test_a_data_set_by_name_may_lack_other_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets: Any = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "hub").mkdir()
    (tmp_path / "hub" / "train.jsonl").write_text('{"text": "x"}\n')
    data = DataConfig(dataset_name=str(tmp_path / "hub"))
    assert len(read_split(data, "train") or []) == 1
    assert read_split(data, "validation") is None
    assert input_files(data) == [str(tmp_path / "hub" / "train.jsonl")]


def test_input_files_are_those_of_all_splits_and_of_directories(conll: str, tmp_path: Path) -> None:
    (tmp_path / "saved").mkdir()
    (tmp_path / "saved" / "state.json").write_text("{}")
    data = DataConfig(train_file=str(tmp_path / "saved"), test_file=conll)
    assert input_files(data) == [str(tmp_path / "saved" / "state.json"), conll]


def test_every_missing_input_file_is_named(conll: str) -> None:
    data = DataConfig(train_file=conll + "x", test_file="nowhere/at/all")
    with pytest.raises(BadInput) as caught:
        input_files(data)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{conll}x: no such file; did you mean a.conll?"
    assert lines[1].startswith("nowhere/at/all: no such file; ")
