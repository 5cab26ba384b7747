"""Parquet and `save_to_disk`: the same rows as in JSON Lines, class numbers as names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bigft.config.errors import BadInput
from bigft.data.formats import ReadOptions, read_records

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
    assert (
        "a.txt: a file, but this data.format is a directory; name the directory that `save_to"
        in message
    )


def test_a_foreign_directory_is_no_saved_one(tmp_path: Path) -> None:
    message = refusal(lambda: read_records([str(tmp_path)], ReadOptions(format="datasets")))
    assert "no directory that `save_to_disk` wrote (" in message


# -- the same rows as in JSON Lines -------------------------------------------------------------

CALLS = [
    {"id": "a", "calls": [{"name": "f", "arguments": {"city": "Paris"}}], "schema": {"p": {}}},
    {"id": "b", "calls": [{"name": "g", "arguments": {"a": 1, "b": [{"x": 2}, {"y": 3}]}}]},
    {"id": "c", "calls": [], "schema": {"p": {"city": {"type": "string"}}}},
]


def parquet(path: Path, table: Any) -> str:
    import pyarrow.parquet

    pyarrow.parquet.write_table(table, path)
    return str(path)


def without_null_columns(rows: Any) -> list[dict[str, Any]]:
    return [{name: row[name] for name in row if row[name] is not None} for row in rows]


def test_keys_that_other_rows_gave_a_struct_are_left_out(tmp_path: Path) -> None:
    import pyarrow

    table = pyarrow.Table.from_pylist(CALLS)
    assert table.to_pylist() != CALLS
    datasets.Dataset(table).save_to_disk(tmp_path / "saved")
    for path in (parquet(tmp_path / "a.parquet", table), str(tmp_path / "saved")):
        records = read_records([path], ReadOptions())
        assert without_null_columns(record.fields for record in records) == CALLS
        assert [bool(record.notes) for record in records] == [True, True, False]
        # Nothing to tell of columns that are not used.
        unused = read_records([path], ReadOptions(columns=frozenset({"id"})))
        assert not any(record.notes for record in unused)


@pytest.mark.parametrize(
    ("column", "is_told"),
    [
        ([[{"role": "user", "name": "Ann"}], [{"role": "user"}]], False),
        ([[{"start": 0, "text": "a"}, {"start": 1}], []], False),
        ([{"en": "a", "fr": "b"}, {"en": "a"}], False),
        ([[[{"a": 1}, {"b": 1}]], []], False),
        ([{"calls": [{"f": 1}]}, {"calls": [{"g": 1}]}], True),
        ([[{"call": {"f": 1}}], [{"call": {"g": 1}}]], True),
    ],
)
def test_keys_that_are_left_out_are_told_of_objects_within_objects_alone(
    column: Any, is_told: bool, tmp_path: Path
) -> None:
    import pyarrow

    rows = [{"c": value} for value in column]
    path = parquet(tmp_path / "a.parquet", pyarrow.Table.from_pylist(rows))
    records = read_records([path], ReadOptions())
    assert [record.fields for record in records] == rows
    assert any(record.notes for record in records) == is_told


def test_nulls_in_lists_and_columns_stay(tmp_path: Path) -> None:
    import pyarrow

    rows = [{"tags": ["A", None], "x": None, "in": [{"a": [None]}]}, {"tags": None, "x": "x"}]
    table = pyarrow.Table.from_pylist(rows)
    records = read_records([parquet(tmp_path / "a.parquet", table)], ReadOptions())
    assert [record.fields for record in records] == [rows[0], {**rows[1], "in": None}]


MIXED = [
    {"answer": "yes", "more": ["x", 1, None, {"k": "007"}], "arguments": {"a": 1, "n": None}},
    {"answer": {"a": "42"}, "more": [], "arguments": {"b": [True]}},
    {"answer": None, "more": ['say "hi"\n', "[1", "007"], "arguments": "free text"},
    {"answer": 5, "more": [2.5, False], "arguments": {}},
]


def test_a_column_of_json_is_decoded_once(tmp_path: Path) -> None:
    mixed = datasets.Dataset.from_list(MIXED, on_mixed_types="use_json")
    assert mixed.features["answer"] == datasets.Json()
    mixed.to_parquet(tmp_path / "a.parquet")
    mixed.save_to_disk(tmp_path / "saved")
    for name in ("a.parquet", "saved"):
        records = read_records([str(tmp_path / name)], ReadOptions())
        assert [record.fields for record in records] == MIXED
        assert not any(record.notes for record in records)


def test_a_column_of_json_that_is_too_deep_is_refused_by_row(tmp_path: Path) -> None:
    import pyarrow

    values = pyarrow.array(["1", "[" * 5000 + "]" * 5000], pyarrow.json_())
    path = parquet(tmp_path / "a.parquet", pyarrow.table({"x": values}))
    assert refusal(lambda: read_records([path], ReadOptions())) == (
        f"{path}:2: column x: brackets within brackets, more than 500 deep; write it flatter"
    )


def foreign_columns() -> dict[str, Any]:
    import datetime
    import decimal

    import pyarrow

    string = pyarrow.string()
    return {
        "map": pyarrow.array([[("k", "v")]], pyarrow.map_(string, string)),
        "in a list": pyarrow.array(
            [[[("role", "user")]]], pyarrow.list_(pyarrow.map_(string, string))
        ),
        "in a struct": pyarrow.array([{"bytes": b"\xff", "path": "a.png"}]),
        "binary": pyarrow.array([b"x"]),
        "duration": pyarrow.array([datetime.timedelta(seconds=1)]),
        "decimal": pyarrow.array([decimal.Decimal("1.5")]),
    }


@pytest.mark.parametrize("name", sorted(foreign_columns()))
def test_a_column_of_a_foreign_type_is_left_out_or_refused_by_name(
    tmp_path: Path, name: str
) -> None:
    import pyarrow

    columns = {"text": pyarrow.array(["x"])} | foreign_columns()
    path = parquet(tmp_path / "a.parquet", pyarrow.table(columns))
    (record,) = read_records([path], ReadOptions(columns=frozenset({"text"})))
    assert record.fields == {"text": "x"}
    message = refusal(lambda: read_records([path], ReadOptions(columns=frozenset({"text", name}))))
    assert message.startswith(f"{path}: column {name}: values of the Arrow type ")
    assert " are no text, number, list or object; convert the column (" in message


def test_a_class_without_a_name_is_refused_by_file_and_row(tmp_path: Path) -> None:
    tags = datasets.List(datasets.ClassLabel(names=["O", "B-X"]))
    rows = {"text": ["a", "b", "c"], "tags": [[0, 1], [0, 2], [-7, -1]]}
    features = datasets.Features(text=datasets.Value("string"), tags=tags)
    # As `cast_column` leaves them: it does not look at the numbers.
    numbers = datasets.Features(text=datasets.Value("string"), tags=[datasets.Value("int64")])
    wrong = datasets.Dataset.from_dict(rows, features=numbers).cast_column("tags", tags)
    assert wrong.features == features
    wrong.to_parquet(tmp_path / "a.parquet")
    wrong.save_to_disk(tmp_path / "saved")
    for path in (str(tmp_path / "a.parquet"), str(tmp_path / "saved")):
        assert refusal(lambda path=path: read_records([path], ReadOptions())).splitlines() == [
            f"{path}:{row}: column tags: the class {number}, but there are 2 names (O, B-X), from "
            "0 on; fix the number, or store the names that belong to it"
            for row, number in ((2, 2), (3, -7))
        ]
        unused = ReadOptions(columns=frozenset({"text"}))
        assert [record.fields["text"] for record in read_records([path], unused)] == list("abc")


@pytest.mark.parametrize("damage", ["state.json", "dataset_info.json", "data"])
def test_a_damaged_saved_directory_is_refused(dataset: Any, tmp_path: Path, damage: str) -> None:
    dataset.save_to_disk(tmp_path / "saved")
    (path,) = (tmp_path / "saved").glob(damage if damage != "data" else "*.arrow")
    path.write_text("{}" if damage == "state.json" else '{"features": {"x": {"_type": "New"}}}')
    assert f"{tmp_path / 'saved'}: no directory that `save_to_disk` wrote (" in refusal(
        lambda: read_records([str(tmp_path / "saved")], ReadOptions())
    )
