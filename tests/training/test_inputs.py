"""Data is prepared once for what it depends on, and the same model is built everywhere."""

from __future__ import annotations

import importlib.metadata
import json
import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import LABELS, byte_tokenizer, save_tiny, tiny_model

from bigft.config.errors import BadInput
from bigft.config.sections import RunConfig
from bigft.data.fingerprint import VERSION
from bigft.data.tag_schemes import Scheme
from bigft.data.tag_spellings import Tagging
from bigft.tasks.token_classification import TokenClassification
from bigft.training.batch import global_batch
from bigft.training.inputs import Known, prepare
from bigft.training.run import Run, versions

Row = tuple[list[str], list[str | None]]
TRAIN: list[Row] = [
    (["bob", "saw", "ann"], ["B-PER", "O", "B-PER"]),
    (["in", "new", "york"], ["O", "B-LOC", "I-LOC"]),
    (["bob"], ["B-PER"]),
]
DEV: list[Row] = [(["ann"], ["B-PER"]), (["ann", "left"], ["B-PER", "O"])]


def write(path: Path, rows: list[Row]) -> Path:
    path.parent.mkdir(exist_ok=True)
    lines = [json.dumps({"tokens": tokens, "tags": tags}) for tokens, tags in rows]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def config(tmp_path: Path, bert: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RunConfig]:
    """config(section={key: value}, ...) over a config of TRAIN and DEV; a cache of its own."""
    monkeypatch.setenv("BIGFT_CACHE", str(tmp_path / "cache"))
    train, dev = write(tmp_path / "train.jsonl", TRAIN), write(tmp_path / "dev.jsonl", DEV)

    def call(**sections: dict[str, Any]) -> RunConfig:
        given: dict[str, Any] = {
            "task": {"name": "token-classification"},
            "model": {"model_name_or_path": str(bert)},
            "data": {"train_file": str(train), "validation_file": str(dev)},
            "train": {"output_dir": str(tmp_path / "run")},
        }
        for name, keys in sections.items():
            given[name] = given.get(name, {}) | keys
        return RunConfig.model_validate(given)

    return call


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[RunConfig]:
    """The configs whose data was read."""
    seen: list[RunConfig] = []
    read = TokenClassification.read

    def counted(config: RunConfig, *reading: Any) -> Any:
        seen.append(config)
        return read(config, *reading)

    monkeypatch.setattr(TokenClassification, "read", counted)
    return seen


def rows(run: Run, split: str = "train") -> list[Any]:
    return [run.splits[split].row(index) for index in range(len(run.splits[split]))]


# -- the cache ----------------------------------------------------------------------------------


def test_a_second_call_reads_nothing_and_gives_the_same(
    config: Callable[..., RunConfig], reads: list[RunConfig]
) -> None:
    first, second = prepare(config()), prepare(config())
    assert len(reads) == 1
    assert rows(first) == rows(second)
    assert first.task.labels == second.task.labels == LABELS[:1] + LABELS[3:] + LABELS[1:3]
    assert (first.notes, first.data_fingerprint) == (second.notes, second.data_fingerprint)


def test_rows_of_parquet_and_saved_directories_are_those_of_json_lines(
    config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    import datasets

    spans = [[{"start": 0, "end": 3, "label": "PER", "text": "bob"}],
             [{"start": 4, "end": 7, "label": "LOC"}], []]  # fmt: skip
    given = [{"text": "bob ann", "spans": each} for each in spans]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
    table = datasets.Dataset.from_list(given)
    assert table[1]["spans"][0]["text"] is None
    table.to_parquet(tmp_path / "a.parquet")
    table.save_to_disk(tmp_path / "saved")
    files = [str(tmp_path / name) for name in ("a.jsonl", "a.parquet", "saved")]
    runs = [prepare(config(data={"train_file": file, "validation_file": ()})) for file in files]
    assert rows(runs[0]) == rows(runs[1]) == rows(runs[2])
    assert len({run.data_fingerprint for run in runs}) == 1
    assert not [note for run in runs for note in run.notes if "null" in note]


def test_another_commit_of_a_data_set_is_prepared_anew(
    config: Callable[..., RunConfig],
    reads: list[RunConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without a network `datasets` answers with what it has kept, under its commit."""
    import datasets

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "kept")
    place = tmp_path / "kept" / "somebody___set" / "default" / "0.0.0"
    place.mkdir(parents=True)
    asked = config(data={"dataset_name": "somebody/set", "train_file": (), "validation_file": ()})
    seen = []
    for commit, word in (("1" * 40, "ann"), ("2" * 40, "eve")):
        write(tmp_path / "set" / "train.jsonl", [([word], ["B-PER"])])
        datasets.load_dataset(str(tmp_path / "set"))
        (loaded,) = (tmp_path / "kept" / "set" / "default" / "0.0.0").glob("*/")
        loaded.rename(place / commit)
        seen += [prepare(asked).splits["train"].record(0).fields["tokens"] for _ in range(2)]
    assert seen == [["ann"], ["ann"], ["eve"], ["eve"]]
    assert len(reads) == 2


@pytest.mark.parametrize("split", ["train", "dev"])
def test_other_content_of_the_same_size_is_prepared_anew(
    split: str, config: Callable[..., RunConfig], reads: list[RunConfig], tmp_path: Path
) -> None:
    prepare(config())
    path = tmp_path / f"{split}.jsonl"
    path.write_text(path.read_text().replace("ann", "eve"))
    prepare(config())
    assert len(reads) == 2


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("task", "doc_stride", 3),
        ("data", "label_all_tokens", True),
        ("data", "max_seq_length", 9),
        ("data", "max_train_samples", 2),
        ("data", "label_list", LABELS),
        ("model", "tokenizer_name", "other"),
        ("model", "config_overrides", {"max_position_embeddings": 32}),
    ],
)
def test_an_option_that_changes_the_rows_prepares_them_anew(
    section: str,
    key: str,
    value: Any,
    config: Callable[..., RunConfig],
    reads: list[RunConfig],
    tmp_path: Path,
) -> None:
    if value == "other":
        value = str(tmp_path / "other")
        byte_tokenizer().save_pretrained(value)
    prepare(config())
    prepare(config(**{section: {key: value}}))
    assert len(reads) == 2


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("data", "preprocessing_num_workers", 2),
        ("optim", "learning_rate", 0.5),
        ("train", "seed", 7),
        ("train", "output_dir", "elsewhere"),
        ("train", "per_device_train_batch_size", 3),
        ("parallel", "zero_stage", 3),
        ("model", "dropout", 0.0),
    ],
)
def test_an_option_that_changes_no_row_does_not(
    section: str, key: str, value: Any, config: Callable[..., RunConfig], reads: list[RunConfig]
) -> None:
    prepare(config())
    prepare(config(**{section: {key: value}}))
    assert len(reads) == 1


def test_how_the_training_set_writes_its_tags_comes_from_the_cache_too(
    config: Callable[..., RunConfig], tmp_path: Path, reads: list[RunConfig]
) -> None:
    write(tmp_path / "train.jsonl", [(["ann", "lee", "x"], ["PER_B", "PER_I", "O"])])
    write(tmp_path / "dev.jsonl", [(["bob"], ["PER_B"])])
    first, second = prepare(config()), prepare(config())
    assert len(reads) == 1
    assert first.tagging == second.tagging == Tagging(Scheme.BIO, "X_B")
    for tagging in (Tagging(Scheme.BIO, "X_B"), Tagging(Scheme.IOBES, "X_B")):  # of a model
        with suppress(BadInput):
            prepare(config(), Known(first.task.labels, tagging=tagging))
    assert len(reads) == 3


def test_the_fingerprint_of_the_data_does_not_depend_on_where_it_lies(
    config: Callable[..., RunConfig], reads: list[RunConfig], tmp_path: Path
) -> None:
    moved = write(tmp_path / "elsewhere" / "renamed.jsonl", TRAIN)
    here = prepare(config())
    there = prepare(config(data={"train_file": str(moved), "preprocessing_num_workers": 2}))
    assert len(reads) == 2
    assert here.data_fingerprint == there.data_fingerprint
    assert here.data_fingerprint.startswith(VERSION)


@pytest.mark.parametrize(
    "change", ["words", "tags", "order", "label_list", "max_seq_length", "tokenizer"]
)
def test_the_fingerprint_of_the_data_tells_what_is_trained_on(
    change: str, config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    data: dict[str, Any] = {}
    model: dict[str, Any] = {}
    before = prepare(config()).data_fingerprint
    if change == "words":
        write(tmp_path / "train.jsonl", [(["rob", *TRAIN[0][0][1:]], TRAIN[0][1]), *TRAIN[1:]])
    elif change == "tags":
        write(tmp_path / "train.jsonl", [*TRAIN[:2], (["bob"], ["O"])])
    elif change == "order":
        write(tmp_path / "train.jsonl", TRAIN[::-1])
    elif change == "label_list":
        data["label_list"] = LABELS
    elif change == "max_seq_length":
        data["max_seq_length"] = 6
    else:
        byte_tokenizer().save_pretrained(tmp_path / "other")
        model["tokenizer_name"] = str(tmp_path / "other")
    assert prepare(config(data=data, model=model)).data_fingerprint != before


def test_other_validation_data_leaves_the_fingerprint(
    config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    before = prepare(config()).data_fingerprint
    write(tmp_path / "dev.jsonl", DEV[:1])
    assert prepare(config()).data_fingerprint == before


# -- notes and refusals -------------------------------------------------------------------------


def test_records_that_occur_in_train_too_are_told(
    config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    assert prepare(config()).notes == []
    write(tmp_path / "dev.jsonl", [*DEV, (["bob"], ["O"]), TRAIN[0], (["bob"], ["B-PER"])])
    expected = (
        "3 of 5 records of validation occur in train too: scores on validation flatter the model"
    )
    assert prepare(config()).notes == [expected]
    assert prepare(config()).notes == [expected]  # from the cache, too


def test_rows_without_a_target_and_sentences_of_several_rows_are_told(
    config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    write(tmp_path / "train.jsonl", [*TRAIN, (["x"], [None]), (["ab"] * 9, ["O"] * 9)])
    run = prepare(config(data={"max_seq_length": 14}, task={"doc_stride": 0}))
    windows = len(run.splits["train"]) - 4
    assert windows > 1
    assert run.notes == [
        f"1 of {4 + windows} rows of train have no target and weigh nothing",
        f"1 of 5 records of train became several rows, {windows} in all",
    ]


def test_data_without_any_target_is_refused(
    config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    write(tmp_path / "train.jsonl", [(["x"], [None])])
    with pytest.raises(BadInput) as caught:
        prepare(config(data={"label_list": LABELS}))
    assert str(caught.value).startswith("data.train_file: every label of the train set is masked")


def test_problems_of_model_and_data_are_told_in_one_go(
    config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    write(tmp_path / "train.jsonl", [(["x", "y"], ["O"])])
    with pytest.raises(BadInput) as caught:
        prepare(config(data={"max_seq_length": 10_000}))
    first, second = str(caught.value).splitlines()
    assert first.startswith("data.max_seq_length: 10000 tokens, but the model takes 64: ")
    assert "train.jsonl:1: 2 tokens, but 1 tags" in second


# -- steps --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("train", "expected"),
    [
        ({}, {"global_batch_size": 8 * 4}),
        ({"gradient_accumulation_steps": 3}, {"global_batch_size": 8 * 3 * 4}),
        ({"global_batch_size": 5}, {"global_batch_size": 5}),
        ({"global_batch_tokens": 512}, {"global_batch_tokens": 512}),
    ],
)
def test_a_step_is_made_of_what_the_config_says(
    train: dict[str, int], expected: dict[str, int], config: Callable[..., RunConfig]
) -> None:
    assert global_batch(config(train=train), world_size=4) == expected


def test_the_order_depends_on_the_seed_and_holds_every_row(
    config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    source = random.Random(0)
    words = ["".join(source.choices("abc", k=3)) for _ in range(64)]
    write(tmp_path / "train.jsonl", [([word], ["B-PER"]) for word in words])
    orders = []
    for seed in (1, 1, 2):
        order = prepare(config(train={"seed": seed})).order({"global_batch_size": 64})
        orders.append(order.global_batch(0).tolist())
        assert sorted(orders[-1]) == list(range(64))
    assert orders[0] == orders[1] != orders[2]


# -- the model ----------------------------------------------------------------------------------


def test_a_model_is_tried_out_on_the_shortest_rows_that_have_a_target(
    config: Callable[..., RunConfig], tmp_path: Path
) -> None:
    rows: list[Row] = [(["bob", "saw", "ann"], ["O", None, "O"]), (["a"], [None]), (["ann"], ["O"])]
    train = write(tmp_path / "probe.jsonl", rows)
    data = {"train_file": str(train), "validation_file": ()}
    features = prepare(config(data=data)).probe_rows(2)
    assert [feature.record for feature in features] == [2, 0]
    assert sum(feature.num_targets for feature in features) == 3


def test_the_model_is_the_same_at_every_call_and_knows_the_labels(
    config: Callable[..., RunConfig],
) -> None:
    run = prepare(config(model={"from_scratch": True}))
    torch.manual_seed(1)
    first = run.build_model()
    torch.manual_seed(2)
    second = run.build_model()
    pairs = zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
    assert first.config.id2label == dict(enumerate(run.task.labels))
    assert first.config.label2id == {label: n for n, label in enumerate(run.task.labels)}
    assert {parameter.dtype for parameter in first.parameters()} == {torch.float32}


def test_another_seed_gives_another_head_on_the_same_body(
    config: Callable[..., RunConfig],
) -> None:
    labels = {"label_list": ["O", *LABELS[1:], "B-X"]}  # one more than the saved head has
    models = [prepare(config(data=labels, train={"seed": s})).build_model() for s in (1, 2)]
    bodies = [model.bert.state_dict() for model in models]
    assert all(torch.equal(bodies[0][name], bodies[1][name]) for name in bodies[0])
    assert not torch.equal(models[0].classifier.weight, models[1].classifier.weight)
    saved = tiny_model().bert.state_dict()
    assert all(torch.equal(bodies[0][name], saved[name]) for name in saved)


@pytest.mark.parametrize("asked", [False, True])
def test_activations_are_checkpointed_only_where_asked_for(
    asked: bool, config: Callable[..., RunConfig]
) -> None:
    model = prepare(config(train={"gradient_checkpointing": asked})).build_model()
    layers = model.bert.encoder.layer
    assert {layer.gradient_checkpointing for layer in layers} == {asked}


def test_on_the_meta_device_no_weight_has_a_value(config: Callable[..., RunConfig]) -> None:
    for scratch in (False, True):
        model = prepare(config(model={"from_scratch": scratch})).build_model("meta")
        assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_versions_name_bigft_and_what_decides_its_numbers() -> None:
    assert {"bigft", "torch", "transformers", "deepspeed"} <= versions().keys()
    assert versions()["torch"] == importlib.metadata.version("torch")
