"""BLEU and chrF over ranks: sacrebleu's corpus scores of all texts, to the last bit."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF

from bigft.data.records import Record
from bigft.tasks.metrics.translation import TranslationMetric

WORDS = {
    "de": ["das", "Haus", "ist", "groß,", "klein.", "(und)", "1.000", "isn't", ""],
    "zh_CN": ["我", "喜欢", "你", "们", "。", "GPU", "好的,", "1.5", " "],
    "ja": ["私", "は", "学生", "です", "。", "AI"],
}
SPLITTERS = {"de": "13a", "zh_CN": "zh", "ja": "char"}
PAIRS = st.sampled_from(list(WORDS)).flatmap(
    lambda language: st.tuples(
        st.just(language),
        st.lists(
            st.tuples(*[st.lists(st.sampled_from(WORDS[language]), max_size=12)] * 2), max_size=12
        ),
    )
)


def updated(language: str | None, pairs: list[tuple[str, str]]) -> TranslationMetric:
    metric = TranslationMetric(language)
    for number, (generated, target) in enumerate(pairs):
        texts = {"generated": generated, "reference": target}
        prediction = {**texts, "loss": 2.0, "targets": 4, "correct": 1}
        metric.update([prediction], [Record(number, {}, "dev.tsv", number + 1)])
    return metric


def merged(language: str | None, metrics: list[TranslationMetric]) -> TranslationMetric:
    whole = TranslationMetric(language)
    for metric in metrics:
        whole.merge(json.loads(json.dumps(metric.state())))
    return whole


@settings(max_examples=40, deadline=None)
@given(sample=PAIRS, num_ranks=st.integers(1, 3))
def test_merged_scores_are_sacrebleus_of_all_texts(
    sample: tuple[str, list[tuple[list[str], list[str]]]], num_ranks: int
) -> None:
    language, words = sample
    joint = " " if language == "de" else ""
    pairs = [(joint.join(generated), joint.join(target)) for generated, target in words]
    ranks = [updated(language, pairs[rank::num_ranks]) for rank in range(num_ranks)]
    scores = merged(language, ranks).compute()
    texts: Any = ([a for a, _ in pairs], [[b for _, b in pairs]])
    if pairs:
        bleu = BLEU(tokenize=SPLITTERS[language]).corpus_score(*texts).score
        assert scores["bleu"] == bleu
        assert scores["chrf"] == CHRF().corpus_score(*texts).score
    else:
        assert scores["bleu"] == scores["chrf"] == 0


@pytest.mark.parametrize(
    ("language", "splitter"),
    [
        *[(code, "zh") for code in ("zh", "zh_CN", "zh-Hans", "zho_Hans", "cmn_Hans", "ZH")],
        *[(code, "char") for code in ("ja", "ja_XX", "jpn_Jpan", "th", "mya_Mymr")],
        *[(code, "13a") for code in (None, "en", "de_DE", "ko_KR", "zu")],
    ],
)
def test_the_target_language_chooses_how_bleu_splits(language: str | None, splitter: str) -> None:
    assert f"|tok:{splitter}|" in TranslationMetric(language).report()


def test_chinese_is_more_than_one_word_a_sentence() -> None:
    pairs = [("我喜欢你们的好朋友。", "我喜欢他们的好朋友。")]
    assert updated("zh", pairs).compute()["bleu"] > 50
    assert updated(None, pairs).compute()["bleu"] < 10  # as English: one wrong word


def test_the_targets_count_too() -> None:
    scores = updated("en", [("a b", "a c"), ("a", "a")]).compute()
    assert list(scores) == ["bleu", "chrf", "perplexity", "token_accuracy"]
    assert scores["perplexity"] == math.exp(0.5)
    assert scores["token_accuracy"] == 0.25


def test_the_report_names_sacrebleus_signatures() -> None:
    lines = updated("zh", [("你好", "你好")]).report().splitlines()
    assert lines[0].startswith("bleu ")
    assert "(nrefs:1|case:mixed|eff:no|tok:zh|smooth:exp|version:" in lines[0]
    assert lines[1].startswith("chrf 100.00  (nrefs:1|case:mixed|eff:yes|nc:6|nw:0|space:no|")


@pytest.mark.parametrize("count", [1, 150])
def test_texts_that_end_in_a_split_full_stop_are_taken_as_they_are(
    count: int, caplog: pytest.LogCaptureFixture
) -> None:
    updated("en", [("it is .", "it is.")] * count)
    assert not caplog.records
