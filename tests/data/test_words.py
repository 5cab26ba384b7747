"""Where words lie in a running text."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bigft.data.words import split_words, within_word, words_meet


def words(text: str, cuts: set[int] | None = None) -> list[str]:
    return [text[start:end] for start, end in split_words(text, cuts or ())]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \t\n", []),
        ("Barack Obama, 44th.", ["Barack", "Obama", ",", "44th", "."]),
        ("...", [".", ".", "."]),
        ("don't snake_case", ["don", "'", "t", "snake", "_", "case"]),
        ("a\u00a0b\u3000c\u2028d\u200be\ufefff", list("abcdef")),
        ("我在Paris住2年。", ["我", "在", "Paris", "住", "2", "年", "。"]),
        ("人々はトム", ["人", "々", "は", "ト", "ム"]),
        ("서울 시청", ["서울", "시청"]),
        ("cafe\u0301 हिन्दी", ["cafe\u0301", "हिन्दी"]),
        ("می‌خواهم", ["می‌خواهم"]),
        ("ok👍🏽 ❤️", ["ok", "👍", "🏽", "❤️"]),
        ("𠮷野家", ["𠮷", "野", "家"]),
        ("a\u0301", ["a\u0301"]),
        ("\u0301a", ["\u0301a"]),
    ],
)
def test_words_of_many_scripts(text: str, expected: list[str]) -> None:
    assert words(text) == expected


def test_a_word_is_cut_where_asked() -> None:
    assert words("Berlinreise nach Rom", {6, 11, 20}) == ["Berlin", "reise", "nach", "Rom"]
    assert words("ab", {0, 1, 2}) == ["a", "b"]


@given(st.text(), st.sets(st.integers(0, 20)))
def test_words_lie_in_order_and_lose_no_visible_character(text: str, cuts: set[int]) -> None:
    spans = split_words(text, cuts)
    borders = [border for span in spans for border in span]
    assert borders == sorted(borders)
    assert all(start < end for start, end in spans)
    assert not any(start < cut < end for start, end in spans for cut in cuts)
    covered = {at for start, end in spans for at in range(start, end)}
    assert all(at in covered for at, character in enumerate(text) if character.isalnum())


@pytest.mark.parametrize(
    ("left", "right", "is_within"),
    [
        ("Ibupro", "fen", True),
        ("Груп", "па", True),
        ("κα", "λό", True),
        ("40", "0", True),
        ("Ibuprofen", " 400", False),
        ("Ibuprofen", ", 400", False),
        ("400", "mg", False),
        ("서울", "에서", False),
        ("北", "京", False),
        ("Ⓐ", "Ⓑ", False),
        ("", "a", False),
        ("a", "", False),
    ],
)
def test_where_a_word_certainly_goes_on(left: str, right: str, is_within: bool) -> None:
    assert within_word(left + right, len(left)) == is_within


@pytest.mark.parametrize(
    ("text", "end", "start", "meet"),
    [
        ("ab", 1, 1, False),
        ("a b", 1, 2, True),
        ("a b", 1, 1, True),  # the token behind begins with the space
        ("\u4f60\u597d", 1, 1, True),
        ("a\u597d", 1, 1, True),
        ("\u597da", 1, 1, True),
        ("\u0e17\u0e35", 1, 1, False),  # a vowel sign
        ("\u0e17\u0e14", 1, 1, True),
        ("\ud55c\uad6d", 1, 1, False),  # Korean writes spaces
        ("a\u200bb", 1, 2, False),
        ("a", 1, 1, False),
    ],
)
def test_words_meet_beside_spaces_and_characters_of_unspaced_scripts(
    text: str, end: int, start: int, meet: bool
) -> None:
    assert words_meet(text, end, start) == meet
