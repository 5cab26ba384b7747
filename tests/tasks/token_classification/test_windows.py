"""Every word of a sentence is trained on and predicted once, however the sentence is cut."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import byte_tokenizer, letter_tokenizer
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from bigft.config.errors import BadInput
from bigft.tasks.token_classification.windows import NO_WORD, Window, Windower

BERT, ROBERTA = letter_tokenizer(), byte_tokenizer()
TOKENIZERS = {"bert": BERT, "roberta": ROBERTA}
ZERO_WIDTH = "\u200b"
SIZES = st.lists(st.integers(0, 9), min_size=1, max_size=40)  # letters of each word


def owned(window: Window) -> list[int]:
    return [word for word in window.words_T if word != NO_WORD]


def shown(window: Window, sizes: list[int]) -> tuple[int, int]:
    """(first word, end) of what the window of one-token words shows."""
    first = owned(window)[0] - window.words_T.index(owned(window)[0]) + 1
    return first, first + len(window.input_ids_T) - 2


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=150, deadline=None)
@given(sizes=SIZES, max_length=st.integers(3, 24), stride=st.integers(0, 30))
def test_every_word_is_owned_by_one_window_and_every_window_fits(
    name: str, sizes: list[int], max_length: int, stride: int
) -> None:
    words = ["abcdefghi"[:size] or ZERO_WIDTH for size in sizes]
    windows = Windower(TOKENIZERS[name], max_length, stride).windows(words)
    assert [word for window in windows for word in owned(window)] == list(range(len(words)))
    for window in windows:
        assert 3 <= len(window.input_ids_T) <= max_length
        assert len(window.words_T) == len(window.continues_T) == len(window.input_ids_T)


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=150, deadline=None)
@given(sizes=SIZES, max_length=st.integers(3, 24), stride=st.integers(0, 30))
def test_the_sub_tokens_of_an_owned_word_stand_in_its_window_in_order(
    name: str, sizes: list[int], max_length: int, stride: int
) -> None:
    tokenizer = TOKENIZERS[name]
    words = ["abcdefghi"[: size + 1] for size in sizes]
    for window in Windower(tokenizer, max_length, stride).windows(words):
        for word in owned(window):
            at = window.words_T.index(word)
            end = at + 1 + window.continues_T.count(word)
            assert window.continues_T[at + 1 : end] == [word] * (end - at - 1)
            expected = tokenizer([words[word]], is_split_into_words=True).input_ids[1:-1]
            assert window.input_ids_T[at:end] == expected[: max_length - 2]


@settings(max_examples=100, deadline=None)
@given(sizes=SIZES, max_length=st.integers(3, 24), stride=st.integers(0, 30))
def test_every_window_owns_a_word(sizes: list[int], max_length: int, stride: int) -> None:
    words = ["abcdefghi"[: size + 1] for size in sizes]
    windows = Windower(BERT, max_length, stride).windows(words)
    assert all(owned(window) for window in windows)


@settings(max_examples=100, deadline=None)
@given(num_words=st.integers(1, 60), max_length=st.integers(3, 20), stride=st.integers(0, 30))
def test_windows_share_the_stride_but_at_most_half_of_themselves(
    num_words: int, max_length: int, stride: int
) -> None:
    windows = Windower(BERT, max_length, stride).windows(["a"] * num_words)
    room = max_length - 2
    spans = [shown(window, [1] * num_words) for window in windows]
    assert spans[0][0] == 0
    assert spans[-1][1] == num_words
    for (_, end), (start, _) in pairwise(spans):
        assert end - start == min(stride, room // 2)


@settings(max_examples=100, deadline=None)
@given(num_words=st.integers(1, 60), max_length=st.integers(3, 20), stride=st.integers(0, 30))
def test_a_word_is_owned_where_its_nearer_side_shows_most(
    num_words: int, max_length: int, stride: int
) -> None:
    windows = Windower(BERT, max_length, stride).windows(["a"] * num_words)
    spans = [shown(window, [1] * num_words) for window in windows]

    def context(word: int, span: tuple[int, int]) -> int:
        left = num_words if span[0] == 0 else word - span[0]  # nothing lies before the sentence
        right = num_words if span[1] == num_words else span[1] - 1 - word
        return min(left, right)

    for window, span in zip(windows, spans, strict=True):
        for word in owned(window):
            others = [other for other in spans if other[0] <= word < other[1]]
            assert context(word, span) == max(context(word, other) for other in others)


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("max_length", [None, 64])
def test_a_sentence_that_fits_is_what_the_tokenizer_makes_of_it(
    name: str, max_length: int | None
) -> None:
    words = ["ab", "x", "it's", "zoo"]
    (window,) = Windower(TOKENIZERS[name], max_length, 8).windows(words)
    encoded = TOKENIZERS[name](words, is_split_into_words=True)
    assert window.input_ids_T == encoded.input_ids
    of_token = [NO_WORD if word is None else word for word in encoded.word_ids()]
    firsts = [
        word if before != word else NO_WORD for before, word in pairwise([NO_WORD, *of_token])
    ]
    assert window.words_T == firsts
    rest = zip(of_token, firsts, strict=True)
    assert window.continues_T == [word if first == NO_WORD else NO_WORD for word, first in rest]


@pytest.mark.parametrize(("name", "borders"), [("bert", (2, 3)), ("roberta", (2, 3))])
def test_every_window_has_the_special_tokens_of_a_sentence(
    name: str, borders: tuple[int, int]
) -> None:
    windows = Windower(TOKENIZERS[name], 10, 2).windows(["abc"] * 9)
    assert len(windows) > 2
    for window in windows:
        assert (window.input_ids_T[0], window.input_ids_T[-1]) == borders
        assert not set(window.input_ids_T[1:-1]) & {0, 1, 2, 3}
        assert window.words_T[0] == window.words_T[-1] == NO_WORD
        assert window.continues_T[0] == window.continues_T[-1] == NO_WORD


def test_a_tokenizer_without_special_tokens_adds_none() -> None:
    vocabulary = {"<unk>": 0, "a": 1, "b": 2}
    plain = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, unk_token="<unk>")
    windows = Windower(tokenizer, 2, 0).windows(["a", "b", "a"])
    assert [window.input_ids_T for window in windows] == [[1, 2], [1]]


@pytest.mark.parametrize(("name", "dropped"), [("bert", ZERO_WIDTH), ("roberta", "")])
def test_a_word_that_the_tokenizer_drops_is_an_unknown_one(name: str, dropped: str) -> None:
    tokenizer = TOKENIZERS[name]
    assert not tokenizer([dropped], is_split_into_words=True, add_special_tokens=False).input_ids
    (window,) = Windower(tokenizer, None, 0).windows(["a", dropped, "b"])
    assert owned(window) == [0, 1, 2]
    assert window.input_ids_T[window.words_T.index(1)] == tokenizer.unk_token_id


def test_of_a_word_longer_than_a_window_its_head_is_kept() -> None:
    windows = Windower(BERT, 6, 2).windows(["a", "bcdefghij", "k"])
    (long,) = [window for window in windows if 1 in owned(window)]
    assert BERT.convert_ids_to_tokens(long.input_ids_T) == [
        "[CLS]", "b", "##c", "##d", "##e", "[SEP]"
    ]  # fmt: skip
    assert [owned(window) for window in windows] == [[0], [1], [2]]


@pytest.mark.parametrize("max_length", [1, 2])
def test_a_length_without_room_for_a_word_is_refused(max_length: int) -> None:
    with pytest.raises(BadInput) as caught:
        Windower(BERT, max_length, 0)
    assert str(caught.value) == (
        f"data.max_seq_length: {max_length}, but 2 special tokens go in first; give at least 3"
    )
