"""Exact match and F1 of hand-made cases, as the scripts of SQuAD and CMRC 2018 count them."""

from __future__ import annotations

import pytest

from bigft.tasks.question_answering.conventions import (
    best_of,
    cmrc_exact,
    cmrc_f1,
    cmrc_segments,
    convention_of,
    squad_1_f1,
    squad_exact,
    squad_f1,
)


@pytest.mark.parametrize(
    ("prediction", "answer", "exact", "f1"),
    [
        ("The Danube", "danube", 1, 1),
        ("a  Danube,\n river!", "DANUBE river", 1, 1),
        ("an anthem", "the anthem", 1, 1),
        ("theatre", "atre", 0, 0),  # an article is a word
        ("a-b", "ab", 1, 1),  # punctuation leaves no space
        ("U.S. army", "the US Army", 1, 1),
        ("don't", "dont", 1, 1),
        ("red red car", "red car car", 0, 2 * 2 / 6),  # words count as often as both have them
        ("Saint Bernadette", "Saint Bernadette Soubirous", 0, 2 * 2 / 5),
        ("\u201cDanube\u201d", "Danube", 0, 0),  # only ASCII punctuation goes
        ("Zürich", "zürich", 1, 1),
        ("五", "五", 1, 1),
        ("五十", "五", 0, 0),
    ],
)
def test_squad(prediction: str, answer: str, exact: float, f1: float) -> None:
    assert squad_exact(prediction, answer) == exact
    assert squad_f1(prediction, answer) == squad_1_f1(prediction, answer) == pytest.approx(f1)
    assert squad_f1(answer, prediction) == pytest.approx(f1)


@pytest.mark.parametrize(
    ("prediction", "answer", "exact", "f1_of_1", "f1_of_2"),
    [("", "", 1, 0, 1), ("a", "", 1, 0, 1), ("", "Danube", 0, 0, 0), ("the", "Danube", 0, 0, 0)],
)
def test_squad_without_a_word(
    prediction: str, answer: str, exact: float, f1_of_1: float, f1_of_2: float
) -> None:
    assert squad_exact(prediction, answer) == exact
    assert squad_1_f1(prediction, answer) == f1_of_1
    assert squad_f1(prediction, answer) == f1_of_2


@pytest.mark.parametrize(
    ("prediction", "answer", "exact", "f1"),
    [
        ("踢爆", "踢爆", 1, 1),
        ("“踢爆”。", "踢爆", 1, 1),
        ("在多瑙河畔", "多瑙河", 0, 2 * 3 / 8),
        ("多瑙的河", "多瑙河", 0, 2 * 2 / 7),  # a run: what is cut apart counts once
        ("河瑙多", "多瑙河", 0, 2 * 1 / 6),  # in its order
        ("1990年", "1990 年", 0, 1),  # segments are equal, characters are not
        ("Nexon公司", "nexon公司", 1, 1),
        ("Nexon Korea", "Korea", 0, 2 * 1 / 3),
        ("3.5%", "3.5", 0, 2 * 1 / 3),
        ("1,000人", "1000人", 0, 2 * 1 / 4),
        ("A-B", "AB", 1, 1),
        ("你好……", "你好", 0, 2 * 2 / 6),  # the script's ellipsis is two characters, and stays
        ("《三国》", "三国", 1, 1),
        ("乌尔姆", "柏林", 0, 0),
        ("", "柏林", 0, 0),
        ("", "", 1, 1),
    ],
)
def test_cmrc(prediction: str, answer: str, exact: float, f1: float) -> None:
    assert cmrc_exact(prediction, answer) == exact
    assert cmrc_f1(prediction, answer) == pytest.approx(f1)


def test_segments_of_a_mixed_text() -> None:
    assert cmrc_segments(" 由韩国Nexon 3.5版，2V2 ") == [
        *"由韩国", "nexon", "3.5", *"版", "2v2"
    ]  # fmt: skip


def test_the_best_gold_answer_counts_and_none_is_the_empty_one() -> None:
    assert best_of(squad_f1, "Danube", ["Rhine", "the Danube river", "danube"]) == 1
    assert best_of(squad_f1, "", []) == best_of(squad_exact, "", []) == 1
    assert best_of(squad_f1, "Danube", []) == 0


@pytest.mark.parametrize(
    ("answers", "name"),
    [
        (["the Danube", "1990", "Ulm"], "SQuAD's script"),
        (["多瑙河", "1990年", "Nexon", "乌尔姆"], "CMRC 2018's script"),
        (["다뉴브 강", "울름"], "SQuAD's script"),
        (["ドナウ川", "ウルム"], "CMRC 2018's script, with each character of Jpan a segment"),
        (["แม่น้ำ", "เมือง"], "CMRC 2018's script, with each character of Thai a segment"),
        ([], "SQuAD's script"),
    ],
)
def test_the_script_of_most_answers_chooses(answers: list[str], name: str) -> None:
    chosen = convention_of(answers, version_2=False)
    assert chosen.name == name
    if answers:
        assert chosen.f1(answers[0], answers[0]) == 1
    if "Jpan" in name:
        assert chosen.f1("ドナウ", "ドナウ川") == pytest.approx(2 * 3 / 7)


def test_the_two_versions_of_squad_differ_in_answers_of_articles_alone() -> None:
    assert convention_of(["Ulm"], version_2=False).f1("a", "A") == 0
    assert convention_of(["Ulm"], version_2=True).f1("a", "A") == 1
