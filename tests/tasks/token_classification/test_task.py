"""What a record becomes, what a batch holds, and that a sentence's answer is one tag per word."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import LABELS, byte_tokenizer, letter_tokenizer, tiny_model

from bigft.config.errors import BadInput
from bigft.config.sections import RunConfig
from bigft.data.records import IGNORE_INDEX, Record, Row
from bigft.data.tag_schemes import Scheme
from bigft.data.tag_spellings import Tagging
from bigft.models.limits import Limit
from bigft.tasks.protocol import Reading, Setting
from bigft.tasks.token_classification import TokenClassification
from bigft.tasks.token_classification.windows import NO_WORD

TEXT = "bob saw ann in rome"
WORDS = TEXT.split()
TAGS = ["B-PER", "O", "B-PER", "O", "B-LOC"]


def config(**sections: dict[str, Any]) -> RunConfig:
    given: dict[str, Any] = {
        "task": {"name": "token-classification", "doc_stride": 4},
        "model": {"model_name_or_path": "unused"},
        "train": {"output_dir": "unused"},
    }
    for name, keys in sections.items():
        given[name] = given.get(name, {}) | keys
    return RunConfig.model_validate(given)


def task(
    max_length: int | None = None,
    labels: Sequence[str] = LABELS,
    tokenizer: Any = None,
    **sections: dict[str, Any],
) -> TokenClassification:
    tokenizer = tokenizer or letter_tokenizer()
    limit = Limit(max_length, "data.max_seq_length") if max_length else None
    return TokenClassification(Setting(config(**sections), tokenizer, labels, limit))


def record(words: Sequence[str], tags: Sequence[str | None] | None, index: int = 0) -> Record:
    fields: dict[str, Any] = {"tokens": list(words)}
    if tags is not None:
        fields["tags"] = list(tags)
    return Record(index, fields, "dev.conll", 7)


def label_names(feature: Row, labels: Sequence[str] = LABELS) -> list[str]:
    """`.` where there is no target."""
    return ["." if label == IGNORE_INDEX else labels[label] for label in feature.columns["labels"]]


# -- encode -------------------------------------------------------------------------------------


def test_the_first_sub_token_of_a_word_is_its_target() -> None:
    (feature,) = task().encode(record(["bob", "at", "rome"], ["B-PER", "O", "B-LOC"]))
    assert label_names(feature) == [
        ".", "B-PER", ".", ".", "O", ".", "B-LOC", ".", ".", ".", "."
    ]  # fmt: skip


def test_with_label_all_tokens_a_continuation_is_inside_the_entity() -> None:
    every = task(data={"label_all_tokens": True})
    (feature,) = every.encode(record(["bob", "at", "ha", "x"], ["B-PER", "O", "I-PER", None]))
    assert label_names(feature) == [
        ".", "B-PER", "I-PER", "I-PER", "O", "O", "I-PER", "I-PER", ".", "."
    ]  # fmt: skip


def test_a_continuation_keeps_the_label_where_there_is_none_for_the_inside() -> None:
    labels = ["O", "B-LOC", "NOUN"]
    every = task(labels=labels, data={"label_all_tokens": True})
    (feature,) = every.encode(record(["rome", "ox"], ["B-LOC", "NOUN"]))
    assert label_names(feature, labels) == [".", *["B-LOC"] * 4, "NOUN", "NOUN", "."]


def test_a_word_without_a_tag_is_no_target() -> None:
    (feature,) = task().encode(record(["bob", "saw"], [None, "O"]))
    assert feature.num_targets == 1
    assert label_names(feature)[4] == "O"
    (unlabelled,) = task().encode(record(["bob", "saw"], None))
    assert unlabelled.num_targets == 0


def test_every_label_outside_of_the_set_is_refused_where_it_stands_first() -> None:
    lines = {"lines": [11, 12, 13, 14, 15]}
    tags = ["B-PER", "B-LOC", "O", "I-LOC", "B-LOC"]
    fields = {"tokens": list("abcde"), "tags": tags}
    known = "does not occur in the training data (O, B-PER); correct it, or name every label in "
    for more, first, second in (({}, ":7: token 2", ":7: token 4"), (lines, ":12", ":14")):
        with pytest.raises(BadInput) as caught:
            task(labels=["O", "B-PER"]).encode(Record(0, fields | more, "dev.conll", 7))
        assert [str(problem) for problem in caught.value.problems] == [
            f"dev.conll{first}: label 'B-LOC' {known}data.label_list",
            f"dev.conll{second}: label 'I-LOC' {known}data.label_list",
        ]


@pytest.mark.parametrize("label_all", [False, True])
@pytest.mark.parametrize("stride", [0, 4, 100])
def test_every_word_of_a_long_sentence_is_trained_on_once(label_all: bool, stride: int) -> None:
    words = ["abcdefgh"[: 1 + n % 5] for n in range(40)]
    tags = [LABELS[n % 5] for n in range(40)]
    long = task(14, task={"doc_stride": stride}, data={"label_all_tokens": label_all})
    features = long.encode(record(words, tags))
    assert len(features) > 5
    assert [(f.record, f.window, f.num_windows) for f in features] == [
        (0, window, len(features)) for window in range(len(features))
    ]
    firsts = [
        (word, label)
        for feature in features
        for word, label in zip(feature.columns["words"], label_names(feature), strict=True)
        if word != NO_WORD
    ]
    assert firsts == list(enumerate(tags))
    num_targets = sum(map(len, words)) if label_all else len(words)
    assert sum(feature.num_targets for feature in features) == num_targets


# -- collate ------------------------------------------------------------------------------------


def test_a_batch_is_padded_to_its_longest_row() -> None:
    one = task(tokenizer=letter_tokenizer(pad_token="[UNK]"))  # a pad id other than 0
    features = one.encode(record(["bob"], ["B-PER"])) + one.encode(record(WORDS, TAGS, 1))
    batch = one.collate(features)
    assert batch.rows == features
    assert batch.size == features[0].length + features[1].length
    assert batch.inputs["input_ids"].shape == batch.labels.shape == (2, features[1].length)
    for row, feature in enumerate(features):
        padding = features[1].length - feature.length
        ids_T = batch.inputs["input_ids"][row].tolist()
        assert ids_T == feature.columns["input_ids"] + [1] * padding
        assert batch.inputs["attention_mask"][row].tolist() == [1] * feature.length + [0] * padding
        assert batch.labels[row].tolist() == feature.columns["labels"] + [IGNORE_INDEX] * padding


def test_target_rows_point_at_the_targets_of_the_flattened_labels() -> None:
    one = task()
    batch = one.collate(
        one.encode(record(["bob", "at"], ["B-PER", None])) + one.encode(record(WORDS, TAGS))
    )
    assert batch.num_targets == len(batch.target_rows_M) == 6
    at_targets = batch.labels.flatten()[batch.target_rows_M]
    assert [LABELS[label] for label in at_targets.tolist()] == ["B-PER", *TAGS]


def test_all_tensors_of_a_batch_are_int64() -> None:
    one = task()
    batch = one.collate(one.encode(record(WORDS, TAGS)))
    tensors = [*batch.inputs.values(), batch.labels, batch.target_rows_M]
    assert {tensor.dtype for tensor in tensors} == {torch.int64}


def test_token_type_ids_are_given_only_to_models_that_take_them() -> None:
    names = []
    for tokenizer in (letter_tokenizer(), byte_tokenizer()):
        one = task(tokenizer=tokenizer)
        batch = one.collate(one.encode(record(WORDS, TAGS)))
        names.append(set(batch.inputs))
    assert names == [
        {"input_ids", "attention_mask", "token_type_ids"},
        {"input_ids", "attention_mask"},
    ]


# -- predictions --------------------------------------------------------------------------------


def answer(one: TokenClassification, model: Any, asked: Record, batch_size: int) -> dict[str, Any]:
    features = one.encode(asked)
    parts: list[dict[str, Any]] = []
    with torch.no_grad():
        for start in range(0, len(features), batch_size):
            batch = one.collate(features[start : start + batch_size])
            parts += one.predict(model, batch).parts
    return one.stitch(parts, asked)


def test_predictions_are_those_of_transformers() -> None:
    tokenizer = letter_tokenizer()
    encoded = tokenizer(WORDS, is_split_into_words=True, return_tensors="pt")
    with torch.no_grad():
        scores_TC = tiny_model()(**encoded).logits[0].softmax(dim=-1)
    of_token = encoded.word_ids()
    rows = [of_token.index(word) for word in range(len(WORDS))]
    one, model = task(), tiny_model()
    one.attach_head(model)
    prediction = answer(one, model, record(WORDS, None), 1)
    assert prediction["tokens"] == WORDS
    assert prediction["tags"] == [LABELS[scores_TC[row].argmax()] for row in rows]
    assert prediction["scores"] == pytest.approx([scores_TC[r].max().item() for r in rows])
    assert len(set(prediction["tags"])) > 1


@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_a_sentence_of_many_windows_gets_one_tag_per_word(batch_size: int) -> None:
    words = ["abcdefgh"[: 1 + n % 5] for n in range(40)]
    one, model = task(14), tiny_model()
    one.attach_head(model)
    asked = record(words, [LABELS[n % 5] for n in range(40)])
    prediction = answer(one, model, asked, batch_size)
    assert prediction["tokens"] == words
    assert len(prediction["tags"]) == len(prediction["scores"]) == 40
    one.metric().update([prediction], [asked])  # refuses another number of tags


def test_the_words_of_a_window_are_answered_from_that_window() -> None:
    words = ["abcdefgh"[: 1 + n % 5] for n in range(40)]
    one, model = task(14), tiny_model()
    one.attach_head(model)
    features = one.encode(record(words, None))
    prediction = one.stitch(
        [one.predict(model, one.collate([feature])).parts[0] for feature in features],
        record(words, None),
    )
    expected = []
    stock = tiny_model()
    for feature in features:
        with torch.no_grad():
            logits_TC = stock(input_ids=torch.tensor([feature.columns["input_ids"]])).logits[0]
        at_words = [at for at, word in enumerate(feature.columns["words"]) if word != NO_WORD]
        expected += [LABELS[logits_TC[at].argmax()] for at in at_words]
    assert prediction["tags"] == expected


def test_the_loss_is_the_sum_over_the_targets() -> None:
    one, model = task(), tiny_model()
    one.attach_head(model)
    batch = one.collate(one.encode(record(WORDS, TAGS)) + one.encode(record(["x"], ["O"])))
    with torch.no_grad():
        stock = tiny_model()(**batch.inputs, labels=batch.labels).loss
        loss = one.loss(model, batch, 0.5)
        assert loss.loss_sum.item() == pytest.approx(stock.item() * 6)
        assert loss.scaled.item() == pytest.approx(stock.item() * 3)
        assert one.predict(model, batch).loss_sum.item() == pytest.approx(stock.item() * 6)


def part(*tags: str) -> dict[str, Any]:
    return {"tags": list(tags), "scores": [1 - n / 10 for n in range(len(tags))]}


def test_entities_have_characters_and_text() -> None:
    one = task()
    asked = one.prompt("Ann Lee, of  New York", 3, "texts", 4)
    assert (asked.index, asked.fields["tokens"]) == (
        3,
        ["Ann", "Lee", ",", "of", "New", "York"],
    )
    prediction = one.stitch([part("B-PER", "I-PER", "O"), part("O", "B-LOC", "I-LOC")], asked)
    assert prediction["text"] == "Ann Lee, of  New York"
    assert prediction["entities"] == [
        {"type": "PER", "text": "Ann Lee", "start": 0, "end": 7, "score": 0.9},
        {"type": "LOC", "text": "New York", "start": 13, "end": 21, "score": 0.8},
    ]


def test_words_without_a_text_give_no_entities() -> None:
    prediction = task().stitch([part("B-PER")], record(["bob"], None))
    assert prediction == {"tokens": ["bob"], "tags": ["B-PER"], "scores": [1.0]}


# -- labels -------------------------------------------------------------------------------------


def test_reading_makes_one_scheme_of_all_splits_and_labels_of_the_training_set(
    tmp_path: Path,
) -> None:
    train, dev = tmp_path / "train.conll", tmp_path / "dev.conll"
    train.write_text("ann S-PER\n\nnew B-LOC\nyork E-LOC\nis O\n")  # IOBES
    dev.write_text("bob S-PER\n")
    splits, labels = TokenClassification.read(
        config(data={"train_file": str(train), "validation_file": str(dev)})
    )
    tags = {name: [one.fields["tags"] for one in records] for name, records in splits.items()}
    assert tags == {
        "train": [["B-PER"], ["B-LOC", "I-LOC", "O"]],
        "validation": [["B-PER"]],
    }
    assert labels == ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]


@pytest.mark.parametrize(
    ("label_list", "labels"),
    [
        (None, ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"]),
        (["LOC_B", "PER_B", "O", "PER_I"], ["B-LOC", "B-PER", "O", "I-PER"]),  # as numbered there
    ],
)
def test_tags_in_another_spelling_are_read_as_bio_in_all_splits(
    tmp_path: Path, label_list: list[str] | None, labels: list[str]
) -> None:
    train, dev = tmp_path / "train.conll", tmp_path / "dev.conll"
    train.write_text("ann PER_B\nlee PER_I\nis O\n\nrome LOC_B\n")
    dev.write_text("bob PER_B\n")
    reading = Reading()
    files = {"train_file": str(train), "validation_file": str(dev), "label_list": label_list}
    splits, found = TokenClassification.read(config(data=files), reading)
    tags = {name: [one.fields["tags"] for one in records] for name, records in splits.items()}
    assert tags == {"train": [["B-PER", "I-PER", "O"], ["B-LOC"]], "validation": [["B-PER"]]}
    assert found == labels
    assert reading.tagging == Tagging(Scheme.BIO, "X_B")
    assert [note.partition(":")[0] for note in reading.notes] == ["3 of 4 labels are respelled"]


def test_a_tag_that_breaks_the_scheme_names_scheme_and_spelling(tmp_path: Path) -> None:
    train, dev = tmp_path / "train.conll", tmp_path / "dev.conll"
    train.write_text("ann PER_B\nlee PER_I\nis O\n\nrome LOC_B\n")
    dev.write_text("is O\nlee PER_I\n")
    with pytest.raises(BadInput) as caught:
        TokenClassification.read(
            config(data={"train_file": str(train), "validation_file": str(dev)})
        )
    assert str(caught.value) == (
        f"{dev}:2: 'I-PER' continues no entity after 'O'; "
        "fix the tag; the training set is read as BIO in X_B"
    )


def test_the_model_is_told_the_labels() -> None:
    assert task(labels=["O", "X"]).model_options() == {
        "id2label": {0: "O", 1: "X"},
        "label2id": {"O": 0, "X": 1},
    }


def test_class_weights_are_by_label_and_1_where_none_is_named() -> None:
    one, model = task(optim={"class_weights": {"B-PER": 3.0}}), tiny_model()
    one.attach_head(model)
    plain, unweighted = task(), tiny_model()
    plain.attach_head(unweighted)
    for tag, weight in (("B-PER", 3.0), ("O", 1.0)):
        batch = one.collate(one.encode(record(["bob"], [tag])))
        with torch.no_grad():
            expected = weight * plain.loss(unweighted, batch, 1.0).loss_sum.item()
            assert one.loss(model, batch, 1.0).loss_sum.item() == pytest.approx(expected)


def test_a_class_weight_for_a_label_that_does_not_exist_is_refused() -> None:
    with pytest.raises(BadInput) as caught:
        task(labels=["O", "B-PER"], optim={"class_weights": {"B-PRE": 2.0}}).attach_head(
            tiny_model(num_labels=2)
        )
    assert str(caught.value) == ("optim.class_weights: no label 'B-PRE'; the labels are O, B-PER")
