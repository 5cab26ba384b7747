"""What of a text a tokenizer does not give back is seen, and what it gives back is not."""

from __future__ import annotations

import string
from typing import Any

import pytest
from tasks.chat import chat_tokenizer
from tiny import letter_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from bigft.tasks.round_trip import CHANGED, CLEANED, UNKNOWN, RoundTrip

MARKS = ["<mark>"]


def unigram(**options: Any) -> PreTrainedTokenizerFast:
    """T5's kind: a character a token, spaces kept, NFKC, white space of every sort is a space."""
    letters = ["\u2581", *string.ascii_letters, *".,'"]
    names = ["<pad>", "</s>", "<unk>", *letters]
    backend = Tokenizer(models.Unigram([(name, -1.0) for name in names], unk_id=2))
    space = normalizers.Replace("\n", " ")
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), space])
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    specials = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, **specials, **options)
    tokenizer.add_special_tokens({"additional_special_tokens": MARKS})
    return tokenizer


def lower_case(**options: Any) -> PreTrainedTokenizerFast:
    """BERT's kind."""
    tokenizer = letter_tokenizer(**options)
    tokenizer.backend_tokenizer.decoder = decoders.WordPiece(cleanup=False)
    return tokenizer


UNKNOWN_T5, UNKNOWN_BERT = UNKNOWN.format(token="<unk>"), UNKNOWN.format(token="[UNK]")


def notes(tokenizer: Any, text: str, rendered: bool = False) -> list[str]:
    ids_T = tokenizer(text, add_special_tokens=False).input_ids
    return list(RoundTrip(tokenizer).notes(text, ids_T, rendered))


@pytest.mark.parametrize(
    ("make", "text", "expected"),
    [
        (unigram, "Say it, and go.", []),
        (unigram, " say  it ", []),
        (unigram, "a {b} c", [UNKNOWN_T5]),
        (unigram, "{", [UNKNOWN_T5]),
        (unigram, "a\nb", [CHANGED]),
        (unigram, "a\u2100b", [UNKNOWN_T5, CHANGED]),  # NFKC writes it a/c
        (unigram, "\uff21bc", [CHANGED]),  # a letter of full width
        (unigram, "a {b} c\nd", [UNKNOWN_T5, CHANGED]),
        (unigram, "a <mark> b", [CHANGED]),  # which is decoded without
        (lower_case, "ab cd", []),
        (lower_case, "Ab cd", [CHANGED]),
        (lower_case, "ab 5 cd", [UNKNOWN_BERT]),
        (chat_tokenizer, "A {b}\n\n\tc \u4f60\uff21 \U0001f600\u200b", []),
    ],
)
def test_a_text_that_is_not_learnt_as_it_is(make: Any, text: str, expected: list[str]) -> None:
    assert notes(make(), text) == expected


@pytest.mark.parametrize(
    ("make", "text", "is_unknown"),
    [
        (unigram, "\u4f60\u597d", True),
        (unigram, "\u4f60 \u597d, \u4f60. <mark></s>", True),  # what is known says nothing
        (unigram, "{}", True),
        (unigram, "{.", False),
        (unigram, "\u4f60 a", False),
        (unigram, "a.", False),
        (lower_case, "5 [SEP]", True),
        (chat_tokenizer, "\u4f60\u597d", False),
    ],
)
def test_a_text_of_which_nothing_is_known(make: Any, text: str, is_unknown: bool) -> None:
    tokenizer = make()
    ids_T = tokenizer(text, add_special_tokens=False).input_ids
    assert RoundTrip(tokenizer).is_unknown(text, ids_T) == is_unknown


@pytest.mark.parametrize("text", ["a ,b", "do n't", "a ' b"])
def test_a_text_that_other_tools_clean_up(text: str) -> None:
    assert notes(unigram(clean_up_tokenization_spaces=True), text) == [CLEANED]
    assert notes(unigram(clean_up_tokenization_spaces=False), text) == []
    # transformers cleans up no BPE
    assert notes(chat_tokenizer(clean_up_tokenization_spaces=True), text) == []


@pytest.mark.parametrize("make", [unigram, chat_tokenizer])
@pytest.mark.parametrize("text", ["a,b", "do it", "a.b"])
def test_a_text_that_nothing_cleans_up(make: Any, text: str) -> None:
    assert notes(make(clean_up_tokenization_spaces=True), text) == []


def test_marks_that_a_template_wrote_are_no_text() -> None:
    assert notes(unigram(), "a <mark>b<mark>\n<mark>", rendered=True) == []
    assert notes(unigram(), "a\nc <mark>b<mark>", rendered=True) == [CHANGED]
    assert notes(chat_tokenizer(), "a<|im_end|>\n<|im_start|>b", rendered=True) == []


def test_an_end_that_is_called_unknown_too_is_known() -> None:
    """As GPT-2's; padding with the unknown token, as many do, makes nothing known."""
    tokenizer = chat_tokenizer()
    tokenizer.unk_token = "</s>"
    assert notes(tokenizer, "a</s>", rendered=True) == []
    assert not RoundTrip(tokenizer).has_unknown([tokenizer.eos_token_id])
    tokenizer = unigram()
    assert RoundTrip(tokenizer).has_unknown([tokenizer.unk_token_id])
    tokenizer.pad_token = "<unk>"
    assert notes(tokenizer, "{") == [UNKNOWN_T5]


def test_a_tokenizer_that_cannot_write_is_compared_with_nothing() -> None:
    tokenizer = lower_case()
    tokenizer.backend_tokenizer.decoder = None
    assert notes(tokenizer, "Ab cd") == []
    assert notes(tokenizer, "Ab 5") == [UNKNOWN_BERT]


def test_text_is_decoded_without_a_clean_up() -> None:
    tokenizer = unigram(clean_up_tokenization_spaces=True)
    ids_T = tokenizer("a , b</s>").input_ids
    assert tokenizer.decode(ids_T) == "a, b</s>"
    assert RoundTrip(tokenizer).text(ids_T) == "a , b"
    assert RoundTrip(tokenizer).text(ids_T, plain=False) == "a , b</s>"
