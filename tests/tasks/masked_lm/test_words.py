"""Which tokens are masked together: words as a reader sees them, in every script."""

from __future__ import annotations

from typing import Any

import pytest
from tiny import byte_tokenizer, letter_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from bigft.tasks.masked_lm.words import continues

CHINESE, THAI = "你好吗", "ที่ดี"


def words(tokenizer: Any, text: str) -> list[tuple[str, int]]:
    """What the text's words cover of it, and of how many tokens they are."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    flags = continues(text, encoded.word_ids(), encoded["offset_mapping"])
    found: list[tuple[int, int, int]] = []
    for (start, end), goes_on in zip(encoded["offset_mapping"], flags, strict=True):
        if goes_on:
            begin, _, count = found.pop()
            found.append((begin, end, count + 1))
        else:
            found.append((start, end, 1))
    return [(text[start:end].strip(), count) for start, end, count in found]


def sentencepiece_like(pieces: list[str], split: bool = True) -> PreTrainedTokenizerFast:
    """XLM-R's kind: words begin at spaces, and an unspaced sentence is one."""
    vocabulary = [("<unk>", 0.0), *((piece, -float(len(piece) == 1)) for piece in pieces)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=split)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def test_wordpieces_of_a_word_belong_together() -> None:
    expected = [("ab", 2), ("c", 1), (",", 1), ("de", 2), (".", 1)]
    assert words(letter_tokenizer(), "ab c, de.") == expected


def test_a_character_of_an_unspaced_script_is_a_word_of_its_own() -> None:
    pieces = [
        "\u2581",
        "\u2581a",
        "\u2581" + CHINESE[0],
        "b",
        "c",
        *CHINESE,
        "好吗",
        "de",
        "\u2581b",
    ]
    tokenizer = sentencepiece_like(pieces)
    assert len({*tokenizer(CHINESE).word_ids()}) == 1  # to the tokenizer the sentence is one word
    assert words(tokenizer, "abc 你好吗de bc") == [
        ("abc", 3), ("你", 1), ("好吗", 1), ("de", 1), ("bc", 2),
    ]  # fmt: skip


def test_the_bytes_of_a_character_stay_together() -> None:
    assert words(byte_tokenizer(), "a你好")[-2:] == [("你", 3), ("好", 3)]


def test_vowel_signs_stay_with_their_consonant() -> None:
    tokenizer = sentencepiece_like(["\u2581" + THAI[0], *dict.fromkeys(THAI)])
    assert words(tokenizer, THAI) == [("ที่", 3), ("ดี", 2)]


def test_white_space_ends_a_word_where_the_tokenizer_does_not_say_so() -> None:
    tokenizer = sentencepiece_like(["\u2581a", "a", "b", "\u2581b"], split=False)
    assert len({*tokenizer("ab ba").word_ids()}) == 1
    assert words(tokenizer, "ab ba") == [("ab", 2), ("ba", 2)]


@pytest.mark.parametrize("text", ["", "a"])
def test_texts_of_no_and_one_token(text: str) -> None:
    assert words(letter_tokenizer(), text) == [(text, 1)] * bool(text)
