"""Parquet, `save_to_disk` and the hub: rows as they are, class numbers as names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bigft.config.errors import BadInput
from bigft.data.formats import ReadOptions, read_records, stream_hub

datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

ROWS = {
    "tokens": [["a", "b"], ["c"]],
    "ner_tags": [[0, 1], [-1]],
    "topic": [1, None],
    "nested": [{"topic": 0, "n": 1}, None],
}
NAMED = [
    {
        "tokens": ["a", "b"],
        "ner_tags": ["O", "B-X"],
        "topic": "news",
        "nested": {"topic": "sport", "n": 1},
    },
    {"tokens": ["c"], "ner_tags": [None], "topic": None, "nested": None},
]


@pytest.fixture
def dataset() -> Any:
    topic = datasets.ClassLabel(names=["sport", "news"])
    features = datasets.Features(
        tokens=datasets.List(datasets.Value("string")),
        ner_tags=datasets.List(datasets.ClassLabel(names=["O", "B-X"])),
        topic=topic,
        nested={"topic": topic, "n": datasets.Value("int32")},
    )
    return datasets.Dataset.from_dict(ROWS, features=features)


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(BadInput) as caught:
        call()
    return str(caught.value)


def test_parquet_rows_have_class_names_and_row_numbers(dataset: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "rows")
    dataset.to_parquet(path)
    records = read_records([path], ReadOptions())
    assert [record.fields for record in records] == NAMED
    assert [(record.file, record.line) for record in records] == [(path, 1), (path, 2)]


def test_parquet_of_other_writers_is_read(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    pyarrow.parquet.write_table(pyarrow.table({"text": ["x"], "n": [3]}), tmp_path / "a.parquet")
    (record,) = read_records([str(tmp_path / "a.parquet")], ReadOptions())
    assert record.fields == {"text": "x", "n": 3}


def test_a_cut_parquet_file_is_refused(dataset: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    dataset.to_parquet(str(path))
    path.write_bytes(path.read_bytes()[:-20])
    assert "a.parquet: no readable Parquet file (" in refusal(
        lambda: read_records([str(path)], ReadOptions())
    )


def test_a_saved_directory_is_read(dataset: Any, tmp_path: Path) -> None:
    dataset.save_to_disk(tmp_path / "saved")
    records = read_records([str(tmp_path / "saved")], ReadOptions())
    assert [record.fields for record in records] == NAMED


def test_a_directory_of_splits_names_them(dataset: Any, tmp_path: Path) -> None:
    splits = datasets.DatasetDict(train=dataset, test=dataset)
    splits.save_to_disk(tmp_path / "saved")
    message = refusal(lambda: read_records([str(tmp_path / "saved")], ReadOptions()))
    assert f"a directory of splits; name one: {tmp_path / 'saved' / 'train'}, " in message


def test_a_file_is_no_saved_directory(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a O\n")
    path = str(tmp_path / "a.txt")
    message = refusal(lambda: read_records([path], ReadOptions(format="datasets")))
    assert "a.txt: a file, but the format `datasets` is a directory; name the dir" in message


def test_a_foreign_directory_is_no_saved_one(tmp_path: Path) -> None:
    message = refusal(lambda: read_records([str(tmp_path)], ReadOptions(format="datasets")))
    assert "no directory that `save_to_disk` wrote (" in message


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A directory that looks like a data set of the hub; nothing is asked over the network."""
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    (tmp_path / "hub").mkdir()
    lines = '{"text": "x"}\n{"text": "y"}\n'
    (tmp_path / "hub" / "train.jsonl").write_text(lines)
    (tmp_path / "hub" / "test.jsonl").write_text('{"text": "z"}\n')
    return str(tmp_path / "hub")


def test_a_hub_split_is_read(hub: str) -> None:
    records = list(stream_hub(hub, None, None, "train", ReadOptions()))
    assert [record.fields for record in records] == [{"text": "x"}, {"text": "y"}]
    assert [record.where for record in records] == [f"{hub}/train.jsonl:{n}" for n in (1, 2)]
    assert len(list(stream_hub(hub, None, None, "train", ReadOptions(max_samples=1)))) == 1


def test_an_absent_split_names_the_others(hub: str) -> None:
    message = refusal(lambda: list(stream_hub(hub, None, None, "validation", ReadOptions())))
    assert message == (
        f"data.dataset_name: {hub!r} has no split validation; it has train, test; "
        "name its files instead"
    )


@pytest.mark.parametrize(
    ("name", "config", "why"),
    [
        ("nobody/nothing", None, "Couldn't reach 'nobody/nothing' on the Hub"),
        ("{hub}", "other", "BuilderConfig 'other' not found. Available: ['default']"),
    ],
)
def test_what_cannot_be_loaded_is_refused_by_its_key(
    hub: str, name: str, config: str | None, why: str
) -> None:
    name = name.format(hub=hub)
    message = refusal(lambda: list(stream_hub(name, config, None, "train", ReadOptions())))
    assert message.startswith(f"data.dataset_name: {name!r} cannot be loaded (")
    assert why in message
    assert message.endswith("; mend it, data.dataset_config_name or data.dataset_revision")


def test_a_saved_directory_is_no_hub_data_set(dataset: Any, tmp_path: Path) -> None:
    dataset.save_to_disk(tmp_path / "saved")
    name = str(tmp_path / "saved")
    assert "that `save_to_disk` wrote; name it as data.train_file" in refusal(
        lambda: list(stream_hub(name, None, None, "train", ReadOptions()))
    )
