"""Where tokens stand is what the tokenizer says, and encoding many at once changes nothing."""

from __future__ import annotations

from typing import Any

import pytest
from tasks.causal import causal_task, talk
from tasks.chat import BARE, CHATML, EMPTY_THOUGHT, LLAMA, MISTRAL, THINKING, chat_tokenizer
from tiny import byte_tokenizer, letter_tokenizer
from tokenizers import normalizers

from bigft.config.errors import BadInput
from bigft.data.records import Record
from bigft.tasks.causal_lm import encoder
from bigft.tasks.causal_lm.tokens import Tokenization
from bigft.tasks.round_trip import CHANGED, RoundTrip
from bigft.tasks.spelling import Spelling

TEXTS = [
    "",
    "a",
    "  two  spaces \n\n and\tlines\r\n",
    "caf\u00e9 \u4f60\u597d \U0001f468\u200d\U0001f469 \u00a0 e\u0301 e\u0301s",
    "<|im_start|>user\n\u00e9<|im_end|>\n<s></s>",
    "\u0120 \u010a \u00ad \ufffd \x01\x7f",  # letters of the alphabet of bytes, and what it hides
    "<\uff5cUser\uff5c> \u00e9tat <pad>",
]
MERGES = [("a", "n"), ("an", "d"), ("\u0120", "\u0120"), ("\u00c3", "\u00a9")]


def marked(tokenizer: Any) -> Any:
    tokenizer.add_special_tokens({"additional_special_tokens": ["<\uff5cUser\uff5c>", "\u00e9tat"]})
    return tokenizer


def composed() -> Any:
    tokenizer = chat_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    return tokenizer


TOKENIZERS = {
    "bytes": chat_tokenizer,
    "with merges": lambda: chat_tokenizer(merges=MERGES),
    "with marks": lambda: marked(chat_tokenizer()),
    "which composes": composed,
    "that puts a space before and trims": lambda: byte_tokenizer(MERGES),
    "of words": letter_tokenizer,
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokens_stand_where_the_tokenizer_says(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    for text, tokens in zip(TEXTS, Tokenization(tokenizer).of(TEXTS), strict=True):
        stated = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        assert tokens.ids_T == stated["input_ids"]
        places = list(zip(tokens.starts_T.tolist(), tokens.ends_T.tolist(), strict=True))
        assert places == [tuple(place) for place in stated["offset_mapping"]], repr(text)


def test_padding_and_truncation_of_a_file_change_no_tokens() -> None:
    tokenizer = chat_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(2)
    tokenizer.backend_tokenizer.enable_padding(length=9)
    (tokens,) = Tokenization(tokenizer).of(["abcde"])
    assert len(tokens.ids_T) == 5


@pytest.mark.parametrize("name", TOKENIZERS)
def test_tokens_that_spell_a_text_are_decoded_to_it(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    spelling, spelled = Spelling(tokenizer), 0
    for text in TEXTS:
        ids_T = tokenizer(text, add_special_tokens=False)["input_ids"]
        if spelling.is_of(ids_T, text):
            spelled += 1
            assert tokenizer.decode(ids_T, clean_up_tokenization_spaces=False) == text
    assert (spelled > 3) == spelling.is_known or name.startswith("that puts")


def test_half_a_character_is_no_text_that_is_given_back() -> None:
    tokenizer = chat_tokenizer()
    ids_T = tokenizer("\u00e9", add_special_tokens=False)["input_ids"]
    assert RoundTrip(tokenizer).notes("\u00e9", ids_T, rendered=True) == ()
    assert RoundTrip(tokenizer).notes("\u00e9", ids_T[:1], rendered=True) == (CHANGED,)


def test_a_run_that_begins_or_ends_within_a_character_does_not_spell_it() -> None:
    (tokens,) = Tokenization(chat_tokenizer()).of(["a\u00e9b"])  # four bytes, a token each
    assert [tokens.spell(slice(*run)) for run in ((0, 4), (0, 1), (1, 3), (3, 4))] == [True] * 4
    assert not tokens.spell(slice(0, 2))
    assert not tokens.spell(slice(2, 4))
    (unknown,) = Tokenization(letter_tokenizer()).of(["ab"])
    assert not unknown.spell(slice(0, 1))


def records() -> list[Record]:
    talks = [talk(f"ask {text}", f"{text} answer", "more?", f"<think>t</think>{text}.", index=i)
             for i, text in enumerate(TEXTS)]  # fmt: skip
    refused = talk("no answer", index=len(talks))
    plain = [Record(len(talks) + 1 + i, {"text": f"plain {text}"}, "t.txt", i + 1)
             for i, text in enumerate(TEXTS)]  # fmt: skip
    return [*talks, refused, *plain, talk("last", "one", index=99)]


@pytest.mark.parametrize("name", ["bytes", "with merges", "which composes"])
@pytest.mark.parametrize("template", [CHATML, LLAMA, MISTRAL, THINKING, EMPTY_THOUGHT, BARE])
def test_records_encoded_together_are_those_encoded_alone(
    template: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = TOKENIZERS[name]()
    tokenizer.chat_template = template
    task = causal_task(max_length=60, tokenizer=tokenizer)

    def encoded(together: int) -> list[Any]:
        monkeypatch.setattr(encoder, "RECORDS_TOGETHER", together)
        found = task.encode_all(records())
        return [str(rows) if isinstance(rows, BadInput) else rows for rows in found]

    alone = encoded(1)
    assert [isinstance(rows, str) for rows in alone].count(True) >= 1
    assert encoded(5) == alone
    assert encoded(1000) == alone


@pytest.mark.parametrize("template", [CHATML, LLAMA, THINKING, BARE])
def test_rows_are_those_of_the_places_that_the_tokenizer_states(template: str) -> None:
    """Its own places, and what it decodes, in the place of what tokens spell."""
    tokenizer = chat_tokenizer(template, merges=MERGES)
    spelled = causal_task(tokenizer=tokenizer)
    stated = causal_task(tokenizer=tokenizer)
    stated._tokenization._is_spelled = False
    stated._round_trip._spelling = Spelling(letter_tokenizer())
    talks = [each for each in records() if "messages" in each.fields and each.index != len(TEXTS)]
    assert list(spelled.encode_all(talks)) == list(stated.encode_all(talks))
