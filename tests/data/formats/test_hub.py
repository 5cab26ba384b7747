"""Data sets of the hub, and directories that look like one: the rows that their files hold."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bigft.config.errors import BadInput
from bigft.data.formats import ReadOptions, hub_splits, hub_version, read_records, stream_hub

datasets = pytest.importorskip("datasets")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(BadInput) as caught:
        call()
    return str(caught.value)


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


def test_what_cannot_be_loaded_is_refused_by_its_key() -> None:
    name = "nobody/nothing"
    message = refusal(lambda: list(stream_hub(name, None, None, "train", ReadOptions())))
    assert message.startswith(f"data.dataset_name: {name!r} cannot be loaded (")
    assert "Couldn't reach 'nobody/nothing' on the Hub" in message
    assert message.endswith("; fix it, data.dataset_config_name or data.dataset_revision")


@pytest.mark.parametrize(("config", "told"), [(None, ""), ("fr", "no 'fr'; ")])
def test_a_data_set_of_several_configurations_names_them(
    tmp_path: Path, config: str | None, told: str
) -> None:
    card = "---\nconfigs:\n- config_name: en\n  data_files: en.jsonl\n"
    (tmp_path / "README.md").write_text(f"{card}- config_name: de\n  data_files: de.jsonl\n---\n")
    for name in ("en", "de"):
        (tmp_path / f"{name}.jsonl").write_text('{"text": "a"}\n')
    hub = str(tmp_path)
    expected = (
        f"data.dataset_config_name: {told}{hub!r} has the configurations en, de; name one of them"
    )
    assert refusal(lambda: hub_splits(hub, config, None)) == expected
    assert refusal(lambda: hub_version(hub, config, None)) == expected
    assert hub_splits(hub, "de", None) == ["train"]


def test_a_configuration_that_a_data_set_has_not_is_refused_by_its_key(hub: str) -> None:
    assert refusal(lambda: hub_splits(hub, "other", None)) == (
        f"data.dataset_config_name: no 'other'; {hub!r} has the configurations default; "
        "name one of them"
    )


def test_a_saved_directory_is_no_hub_data_set(tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": ["x"]}).save_to_disk(tmp_path / "saved")
    name = str(tmp_path / "saved")
    assert "that `save_to_disk` wrote; name it as data.train_file" in refusal(
        lambda: list(stream_hub(name, None, None, "train", ReadOptions()))
    )


def rows_of(directory: Path, **options: Any) -> list[Any]:
    records = stream_hub(str(directory), None, None, "train", ReadOptions(**options))
    return [record.fields for record in records]


ROWS = [
    {"text": "42", "meta": {"a": "2024-01-01"}, "day": "2024-01-01"},
    {"text": "007", "meta": ["true"], "day": "2024-01-02T10:00:00"},
    {"text": "null", "meta": 1e3, "day": "2024-01-03"},
]


@pytest.mark.parametrize("text", ["x", 5])
def test_json_files_keep_the_types_of_their_values(hub: str, text: Any) -> None:
    """`datasets` makes 42 of "42" where another row holds a number, and a time of a date."""
    rows = [*ROWS, {"text": text, "meta": None, "day": "2024-01-04"}]
    file = Path(hub, "train.jsonl")
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    guessed = datasets.load_dataset(hub, split="train")[0]
    assert guessed != rows[0]
    assert rows_of(Path(hub)) == rows
    assert rows_of(Path(hub)) == [
        record.fields for record in read_records([str(file)], ReadOptions())
    ]


def test_parquet_files_are_read_as_any_parquet_file(hub: str) -> None:
    import pyarrow
    import pyarrow.parquet

    for name in ("train", "test"):
        Path(hub, f"{name}.jsonl").unlink()
    extra = pyarrow.array([[("k", "v")]], pyarrow.map_(pyarrow.string(), pyarrow.string()))
    table = pyarrow.table({"text": ["x"], "extra": extra})
    pyarrow.parquet.write_table(table, Path(hub, "train.parquet"))
    assert rows_of(Path(hub), columns=frozenset({"text"})) == [{"text": "x"}]
    assert "train.parquet: column extra: values of the Arrow type map" in refusal(
        lambda: rows_of(Path(hub))
    )


CARD = """\
---
dataset_info:
  features:
  - name: tokens
    list: string
  - name: tags
    list:
      class_label:
        names:
          '0': O
          '1': B-X
---
"""


def test_class_names_of_the_card_are_used(hub: str) -> None:
    Path(hub, "README.md").write_text(CARD)
    Path(hub, "train.jsonl").write_text('{"tokens": ["a", "b"], "tags": [0, 1]}\n')
    assert rows_of(Path(hub)) == [{"tokens": ["a", "b"], "tags": ["O", "B-X"]}]
    Path(hub, "train.jsonl").write_text('{"tokens": ["a"], "tags": [2]}\n')
    assert "train.jsonl:1: column tags: the class 2, but there are 2 names (O, B-X)" in refusal(
        lambda: rows_of(Path(hub))
    )


def test_other_formats_are_loaded_by_datasets(hub: str) -> None:
    for name in ("train", "test"):
        Path(hub, f"{name}.jsonl").unlink()
    Path(hub, "train.csv").write_text("text\nx\ny\n")
    records = list(stream_hub(hub, None, None, "train", ReadOptions()))
    assert [record.where for record in records] == [f"{hub}[train]:1", f"{hub}[train]:2"]
    assert rows_of(Path(hub), max_samples=1) == [{"text": "x"}]


@pytest.mark.parametrize("name", ["train.jsonl", "train.parquet", "train.csv"])
def test_a_pointer_in_the_place_of_a_split_is_named(hub: str, name: str) -> None:
    for split in ("train", "test"):
        Path(hub, f"{split}.jsonl").unlink()
    Path(hub, name).write_text("version https://git-lfs.github.com/spec/v1\noid x, size 1, a\n")
    assert f"{hub}/{name}: a Git LFS pointer" in refusal(
        lambda: [hub_splits(hub, None, None), rows_of(Path(hub))]
    )


def test_a_pointer_that_is_not_needed_is_no_matter(hub: str) -> None:
    Path(hub, "test.jsonl").write_text("version https://git-lfs.github.com/spec/v1\noid x\n")
    assert rows_of(Path(hub)) == [{"text": "x"}, {"text": "y"}]


def test_a_version_tells_two_commits_apart(
    hub: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `datasets` keeps of the hub's data set lies under its name and commit."""
    kept = tmp_path / "cache" / "somebody___set" / "default" / "0.0.0"
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.load_dataset(hub, split="train")
    (loaded,) = (tmp_path / "cache" / "hub" / "default" / "0.0.0").glob("*/")
    versions = []
    for commit in ("1" * 40, "2" * 40):
        kept.mkdir(parents=True, exist_ok=True)
        loaded.rename(kept / commit)
        loaded = kept / commit
        versions.append(hub_version("somebody/set", None, None))
    assert versions == ["1" * 40, "2" * 40]
