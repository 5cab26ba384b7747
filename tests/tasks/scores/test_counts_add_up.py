"""The scores of tagging metrics do not depend on which rank saw which record."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigft.data.records import Record
from bigft.tasks.token_classification.entities import EntityMetric
from bigft.tasks.token_classification.words import TokenMetric

LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"]
WORD = st.tuples(st.sampled_from([*LABELS, None]), st.sampled_from(LABELS))
SENTENCES = st.lists(st.lists(WORD, max_size=6), max_size=12)  # words are (gold, predicted)


def update(metric, sentences):
    predictions = [{"tags": [word[1] for word in sentence]} for sentence in sentences]
    fields = [{"tags": [word[0] for word in sentence]} for sentence in sentences]
    metric.update(predictions, [Record(i, field, "a.conll", i) for i, field in enumerate(fields)])


@pytest.mark.parametrize("metric", [EntityMetric, TokenMetric])
@settings(max_examples=30, deadline=None)
@given(shards=st.lists(SENTENCES, min_size=1, max_size=4))
def test_any_sharding_of_the_records_gives_the_same_scores(metric, shards):
    whole = metric(LABELS)
    update(whole, [sentence for shard in shards for sentence in shard])
    ranks = [metric(LABELS) for _ in shards]
    for rank, shard in zip(ranks, shards, strict=True):
        update(rank, shard)
    for rank in ranks[1:]:
        ranks[0].merge(json.loads(json.dumps(rank.state())))
    assert ranks[0].compute() == whole.compute()
    assert ranks[0].report() == whole.report()


@pytest.mark.parametrize("metric", [EntityMetric, TokenMetric])
@settings(max_examples=30, deadline=None)
@given(sentences=SENTENCES)
def test_a_word_without_a_gold_tag_counts_on_neither_side(metric, sentences):
    marked, dropped = metric(LABELS), metric(LABELS)
    update(marked, sentences)
    update(dropped, [[word for word in sentence if word[0]] for sentence in sentences])
    assert marked.compute() == dropped.compute()


@pytest.mark.parametrize("metric", [EntityMetric, TokenMetric])
def test_a_prediction_of_the_wrong_length_names_its_record(metric):
    record = Record(0, {"tags": ["O", "O"]}, "dev.conll", 7)
    with pytest.raises(ValueError, match=r"^dev\.conll:7: 1 tags predicted for 2 words"):
        metric(LABELS).update([{"tags": ["O"]}], [record])


@pytest.mark.parametrize("metric", [EntityMetric, TokenMetric])
def test_without_a_scored_word_every_score_is_zero(metric):
    empty = metric(LABELS)
    update(empty, [[(None, "B-PER")]])
    assert set(empty.compute().values()) == {0}
    assert empty.report()
