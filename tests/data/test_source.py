"""Which files a config names, and the records of one split of them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from bigft.config.errors import BadInput
from bigft.config.sections import DataConfig
from bigft.data.source import SPLITS, files_of, input_files, read_split, stream_split


def data(**keys: Any) -> DataConfig:
    return DataConfig.model_validate(keys)


def write(path: Path, *words: str) -> str:
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text("\n".join(json.dumps({"tokens": [word], "tags": ["O"]}) for word in words))
    return str(path)


def words(config: DataConfig, split: str) -> list[str] | None:
    records = read_split(config, split, "words")
    return None if records is None else [record.fields["tokens"][0] for record in records]


# -- files --------------------------------------------------------------------------------------


def test_the_files_of_each_split_are_read_in_order(tmp_path: Path) -> None:
    b, a = write(tmp_path / "b.jsonl", "b"), write(tmp_path / "a.jsonl", "a", "c")
    dev = write(tmp_path / "dev.jsonl", "d")
    config = data(train_file=[b, a], validation_file=dev)
    assert files_of(config, "train") == (b, a)
    assert [words(config, split) for split in SPLITS] == [["b", "a", "c"], ["d"], None]
    train = read_split(config, "train", "words")
    assert train is not None
    assert [(r.index, r.file, r.line) for r in train] == [(0, b, 1), (1, a, 1), (2, a, 2)]


def test_samples_to_train_on_and_to_evaluate_on_are_limited_apart(tmp_path: Path) -> None:
    file = write(tmp_path / "a.jsonl", "a", "b", "c")
    files = {"train_file": file, "validation_file": file, "test_file": file}
    config = data(**files, max_train_samples=2)
    assert [words(config, split) for split in SPLITS] == [["a", "b"], list("abc"), list("abc")]
    config = data(**files, max_eval_samples=1)
    assert [words(config, split) for split in SPLITS] == [list("abc"), ["a"], ["a"]]


def test_a_stream_gives_what_it_has_read_and_its_problems_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"a": 1}\n{"a": }\n{"a": 3}\n')
    config = data(train_file=str(tmp_path / "a.jsonl"))
    assert stream_split(config, "test", "words") is None
    stream = stream_split(config, "train", "words")
    assert stream is not None
    assert [next(stream).fields, next(stream).fields] == [{"a": 1}, {"a": 3}]
    with pytest.raises(BadInput, match=r"a\.jsonl:2:7: no JSON"):
        next(stream)


def test_what_a_sample_of_text_is_comes_from_the_config(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("One line.\nAnother one of it.\n\nA second.\n")
    for sample_by, num_samples in [("line", 3), ("paragraph", 2), ("document", 1)]:
        records = read_split(
            data(train_file=str(tmp_path / "a.txt"), sample_by=sample_by), "train", "text"
        )
        assert records is not None
        assert len(records) == num_samples


def test_the_format_that_is_asked_for_is_used(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("bob\tB-PER\n")  # its name says something else
    config = data(train_file=str(tmp_path / "a.jsonl"), format="conll")
    assert words(config, "train") == ["bob"]


def test_a_split_of_a_missing_file_is_refused_by_its_path(tmp_path: Path) -> None:
    config = data(train_file=str(tmp_path / "none.jsonl"))
    assert input_files(config) == []
    with pytest.raises(BadInput, match=r"none\.jsonl"):
        read_split(config, "train", "words")


# -- what a fingerprint covers ------------------------------------------------------------------


def test_every_named_file_is_an_input_in_the_order_of_the_splits(tmp_path: Path) -> None:
    names = ("test", "train", "dev")
    test, train, dev = (write(tmp_path / f"{name}.jsonl", name) for name in names)
    config = data(train_file=train, validation_file=dev, test_file=test)
    assert input_files(config) == [train, dev, test]


def test_directories_are_opened_up_sorted(tmp_path: Path) -> None:
    inner = [write(tmp_path / "d" / name, "x") for name in ("z/b.jsonl", "a.jsonl", "z/a.jsonl")]
    for config in (data(train_file=str(tmp_path / "d")), data(dataset_name=str(tmp_path / "d"))):
        assert input_files(config) == sorted(inner)


def test_a_data_set_of_the_hub_has_no_file_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert input_files(data(dataset_name="nobody/nothing")) == []


def test_a_config_without_data_is_refused() -> None:
    with pytest.raises(BadInput) as caught:
        input_files(data())
    assert str(caught.value) == (
        "data.train_file: no data is named; give train_file or dataset_name"
    )


def test_every_pipe_is_refused_since_it_has_no_content_to_go_by(tmp_path: Path) -> None:
    pipes = [str(tmp_path / name) for name in ("a", "b")]
    for pipe in pipes:
        os.mkfifo(pipe)
    with pytest.raises(BadInput) as caught:
        input_files(data(train_file=pipes[0], test_file=pipes[1]))
    assert [problem.where for problem in caught.value.problems] == pipes
    assert "a pipe or a device: it can be read only once" in str(caught.value)


# -- data sets ----------------------------------------------------------------------------------


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A data set that `datasets` loads by its name: train and test, no validation."""
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    write(tmp_path / "set" / "train.jsonl", "a", "b", "c")
    write(tmp_path / "set" / "test.jsonl", "d")
    return str(tmp_path / "set")


def test_a_data_sets_splits_are_those_it_has(directory: str) -> None:
    config = data(dataset_name=directory, max_train_samples=2)
    assert [words(config, split) for split in SPLITS] == [["a", "b"], None, ["d"]]
    stream = stream_split(config, "train", "words")
    assert stream is not None
    assert next(stream).fields["tokens"] == ["a"]


def test_a_data_set_that_is_not_there_is_refused_by_its_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    name = str(tmp_path / "none")
    with pytest.raises(BadInput) as caught:
        read_split(data(dataset_name=name), "train", "words")
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"data.dataset_name: {name!r} cannot be loaded (")
    assert line.endswith("; give a hub id, or a directory that `datasets` can load")
