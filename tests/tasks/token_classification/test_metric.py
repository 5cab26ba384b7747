"""What a tagging run reports: entities where there are any, words where there are none."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities

from bigft.data.records import Record
from bigft.tasks.token_classification.metric import TaggingMetric, entities

BIO = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]


def scored(
    labels: Sequence[str], gold: list[str], predicted: list[str], per_type: bool = False
) -> TaggingMetric:
    metric = TaggingMetric(labels, per_type)
    metric.update([{"tags": predicted}], [Record(0, {"tags": gold}, "a.conll", 1)])
    return metric


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(BIO), max_size=12))
def test_entities_are_those_of_seqeval(tags: list[str]) -> None:
    assert entities(tags) == [(name, first, last + 1) for name, first, last in get_entities(tags)]


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        (["I-PER", "I-PER"], [("PER", 0, 2)]),
        (["B-PER", "I-LOC"], [("PER", 0, 1), ("LOC", 1, 2)]),
        (["B-PER", "B-PER", "I-PER"], [("PER", 0, 1), ("PER", 1, 3)]),
        (["B-PER", "O", "I-PER"], [("PER", 0, 1), ("PER", 2, 3)]),
        (["O", "NOUN"], []),
    ],
)
def test_a_stray_inside_begins_an_entity(
    tags: list[str], expected: list[tuple[str, int, int]]
) -> None:
    assert entities(tags) == expected


def test_with_bio_labels_f1_is_that_of_entities() -> None:
    gold = ["B-PER", "I-PER", "O", "B-LOC"]
    predicted = ["B-PER", "O", "O", "B-LOC"]  # three of four words, one of two entities
    scores = scored(BIO, gold, predicted).compute()
    assert (scores["f1"], scores["accuracy"]) == (0.5, 0.75)


def test_with_plain_labels_f1_is_that_of_words() -> None:
    scores = scored(["NOUN", "VERB"], ["NOUN", "VERB", "NOUN"], ["NOUN", "VERB", "VERB"]).compute()
    assert scores["f1"] == scores["accuracy"] == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    "labels",
    [["B-cell", "T-cell", "NK-cell"], ["NNP", "VBZ", "B"], ["A", "B"], ["B-PER", "PER-B", "o"],
     ["B", "S"]],
)  # fmt: skip
def test_labels_that_only_look_like_tags_are_plain(labels: list[str]) -> None:
    scores = scored(labels, labels, labels[::-1]).compute()
    assert scores["f1"] == scores["accuracy"]


@pytest.mark.parametrize(("labels", "name"), [(BIO, "PER"), (["NOUN", "VERB"], "NOUN")])
def test_scores_of_each_type_are_given_only_where_asked_for(labels: list[str], name: str) -> None:
    gold = labels[:3]
    short, long = (scored(labels, gold, gold, per_type).compute() for per_type in (False, True))
    of_type = {f"{name}_{key}" for key in ("precision", "recall", "f1", "support")}
    assert of_type <= long.keys()
    assert not of_type & short.keys()
    assert short.items() <= long.items()
    assert {"f1", "accuracy", "macro_f1", "weighted_f1"} <= short.keys()


@pytest.mark.parametrize("labels", [BIO, ["NOUN", "VERB"]])
def test_states_of_ranks_add_up(labels: list[str]) -> None:
    first = scored(labels, labels, labels[::-1], per_type=True)
    second = scored(labels, labels, labels, per_type=True)
    whole = scored(labels, labels, labels[::-1], per_type=True)
    whole.update([{"tags": labels}], [Record(1, {"tags": labels}, "a.conll", 9)])
    first.merge(json.loads(json.dumps(second.state())))
    assert first.compute() == whole.compute()
    assert first.report() == whole.report()


def test_the_report_shows_entities_and_words() -> None:
    report = scored(BIO, BIO, BIO).report()
    titles = ["conlleval", "strict", "classification_report"]
    places = [report.index(title) for title in titles]
    assert places == sorted(places)
    assert "strict" not in scored(["NOUN"], ["NOUN"], ["NOUN"]).report()
