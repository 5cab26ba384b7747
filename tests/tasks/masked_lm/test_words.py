"""Which tokens are masked together: words as a reader sees them, in every script."""

from __future__ import annotations

from typing import Any

import pytest
from tiny import byte_tokenizer, letter_tokenizer
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from bigft.tasks.masked_lm.words import continues

CHINESE, THAI = "你好吗", "ที่ดี"


def words(tokenizer: Any, text: str) -> list[str]:
    """The text's words, tokens joined by +."""
    encoded = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    flags = continues(text, encoded.word_ids(), encoded["offset_mapping"])
    found: list[list[str]] = []
    for (start, end), goes_on in zip(encoded["offset_mapping"], flags, strict=True):
        if not goes_on:
            found.append([])
        found[-1].append(text[start:end])
    return ["+".join(tokens) for tokens in found]


def sentencepiece_like(pieces: list[str], split: bool = True) -> PreTrainedTokenizerFast:
    """XLM-R's kind: words begin at spaces, and an unspaced sentence is one."""
    vocabulary = [("<unk>", 0.0), *((piece, -float(len(piece) == 1)) for piece in pieces)]
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(split=split)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def test_wordpieces_of_a_word_belong_together() -> None:
    assert words(letter_tokenizer(), "ab c, de.") == ["a+b", "c", ",", "d+e", "."]


def test_a_character_of_an_unspaced_script_is_a_word_of_its_own() -> None:
    pieces = ["\u2581", "\u2581a", "b", "c", *CHINESE, "好吗", "de"]
    tokenizer = sentencepiece_like(pieces)
    encoded = tokenizer("你好吗")
    assert len({*encoded.word_ids()}) == 1  # to the tokenizer the sentence is one word
    found = words(tokenizer, "abc 你好吗de bc")
    assert [word.replace("+", "").strip() for word in found if word.strip("+ ")] == [
        "abc", "你", "好吗", "de", "bc",
    ]  # fmt: skip


def test_the_bytes_of_a_character_stay_together() -> None:
    found = words(byte_tokenizer(), "a你好")
    assert [len(word.split("+")) for word in found][-2:] == [3, 3]


def test_vowel_signs_stay_with_their_consonant() -> None:
    tokenizer = sentencepiece_like(["\u2581", *dict.fromkeys(THAI)])
    found = [word for word in words(tokenizer, THAI) if word]
    assert [word.replace("+", "") for word in found] == ["ที่", "ดี"]


def test_white_space_ends_a_word_where_the_tokenizer_does_not_say_so() -> None:
    tokenizer = sentencepiece_like(["\u2581", "a", "b", "\u2581b"], split=False)
    assert len({*tokenizer("ab ba").word_ids()}) == 1
    assert len([word for word in words(tokenizer, "ab ba") if word.strip()]) == 2


@pytest.mark.parametrize("text", ["", "a"])
def test_texts_of_no_and_one_token(text: str) -> None:
    assert words(letter_tokenizer(), text) == [text] * bool(text)
