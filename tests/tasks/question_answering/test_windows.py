"""Windows are the rows that transformers makes of a pair, and an answer is found in them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tasks.questions import record
from tiny import byte_tokenizer, letter_tokenizer
from tokenizers import processors

from bigft.config.errors import BadInput
from bigft.tasks.question_answering.targets import NO_TOKEN, OUTSIDE, TORN, targets_of
from bigft.tasks.question_answering.windows import Window, Windower, spans


def reversed_tokenizer() -> Any:
    """The context comes first, and the token for "no answer" last, as XLNet has it."""
    tokenizer = letter_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A [SEP] [CLS]",
        pair="$B:1 [SEP]:1 $A [SEP] [CLS]:2",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


TOKENIZERS = {"bert": letter_tokenizer, "roberta": byte_tokenizer, "reversed": reversed_tokenizer}
each_tokenizer = pytest.mark.parametrize("name", TOKENIZERS)
QUESTION, CONTEXT = "who ran", "a cat ran up a tall old tree and sat on it all day long"


@pytest.mark.parametrize("name", ["bert", "roberta"])
@pytest.mark.parametrize(("length", "stride"), [(64, 8), (24, 4), (20, 0), (22, 3), (512, 9)])
def test_windows_are_those_of_transformers(name: str, length: int, stride: int) -> None:
    tokenizer = TOKENIZERS[name]()
    windows = Windower(tokenizer, length, stride).windows(QUESTION, CONTEXT)
    expected = tokenizer(
        QUESTION,
        CONTEXT,
        truncation="only_second",
        max_length=length,
        stride=stride,
        return_overflowing_tokens=True,
        return_offsets_mapping=True,
    )
    found = windows.windows
    assert [window.input_ids_T for window in found] == expected["input_ids"]
    assert [window.token_type_ids_T for window in found] == (
        expected["token_type_ids"] if name == "bert" else [None] * len(found)
    )
    for number, window in enumerate(found):
        sides = expected.sequence_ids(number)
        assert window.position == sides.index(1)
        offsets = [
            pair for pair, side in zip(expected["offset_mapping"][number], sides, strict=True)
            if side == 1
        ]  # fmt: skip
        characters = windows.characters[window.first : window.end]
        assert len(characters) == len(offsets)
        for own, theirs in zip(characters, offsets, strict=True):
            # Of a token of no character each has some place beside it.
            assert own == theirs or (own.start == own.end and theirs[0] == theirs[1])


@each_tokenizer
def test_the_token_for_no_answer_is_that_of_the_model(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    question = f"who {tokenizer.cls_token} ran"  # a text may spell it
    for window in Windower(tokenizer, 30, 4).windows(question, CONTEXT).windows:
        assert window.input_ids_T[window.null] == tokenizer.cls_token_id
        assert window.null == (len(window.input_ids_T) - 1 if name == "reversed" else 0)


@each_tokenizer
def test_an_answer_is_the_target_of_each_window_that_holds_all_of_it(name: str) -> None:
    tokenizer = TOKENIZERS[name]()
    cut = Windower(tokenizer, 30, 10).windows(QUESTION, CONTEXT)
    assert len(cut.windows) > 2
    answer = record(QUESTION, CONTEXT, "old tree").fields["answers"]
    targets, note = targets_of(cut, answer)
    assert note == OUTSIDE
    held = [
        text(tokenizer, window.input_ids_T[start : end + 1])
        for window, (start, end) in zip(cut.windows, targets, strict=True)
        if (start, end) != (window.null, window.null)
    ]
    assert held == ["oldtree"] * len(held) != []
    whole = [text(tokenizer, window.input_ids_T) for window in cut.windows]
    assert len(held) == sum("oldtree" in each for each in whole)


def test_two_windows_may_hold_the_same_answer() -> None:
    cut = Windower(letter_tokenizer(), 36, 12).windows(QUESTION, CONTEXT)
    targets, note = targets_of(cut, record(QUESTION, CONTEXT, "tree").fields["answers"])
    assert note == ""
    assert [
        start - window.position for window, (start, _) in zip(cut.windows, targets, strict=True)
    ] == [17, 2]


def text(tokenizer: Any, ids_T: list[int]) -> str:
    return tokenizer.decode(ids_T).replace("##", "").replace(" ", "").replace("\u0120", "")


def test_borders_within_a_token_and_around_it_take_the_whole_token() -> None:
    tokenizer = byte_tokenizer(merges=[("a", "b"), ("ab", "c")])
    cut = Windower(tokenizer, None, 0).windows("q", "x abc y")
    for answer in ("b", "abc", " abc ", "c "):
        (target,), note = targets_of(cut, record("q", "x abc y", answer).fields["answers"])
        (window,) = cut.windows
        ids_T = window.input_ids_T[target.start : target.end + 1]
        assert tokenizer.convert_ids_to_tokens([ids_T[-1 if answer != "c " else 0]])
        assert "abc" in tokenizer.decode(ids_T)
        assert note == ""


def test_a_character_of_several_tokens_is_taken_whole() -> None:
    tokenizer = byte_tokenizer()
    cut = Windower(tokenizer, None, 0).windows("q", "在乌尔姆")
    ((start, end),), _ = targets_of(cut, record("q", "在乌尔姆", "尔").fields["answers"])
    first = cut.windows[0].position
    assert [*cut.characters[start - first : end + 1 - first]] == [(2, 3)] * 3


def test_a_question_without_an_answer_has_the_first_token_as_target() -> None:
    cut = Windower(letter_tokenizer(), 24, 4).windows(QUESTION, CONTEXT)
    assert targets_of(cut, []) == ([(0, 0)] * len(cut.windows), "")
    assert targets_of(cut, None) == ([(-100, -100)] * len(cut.windows), "")


def test_an_answer_that_no_window_holds_is_named() -> None:
    cut = Windower(letter_tokenizer(), 20, 2).windows(QUESTION, CONTEXT)
    answer = record(QUESTION, CONTEXT, CONTEXT[2:-2]).fields["answers"]
    assert targets_of(cut, answer) == ([(0, 0)] * len(cut.windows), TORN)


def test_an_answer_without_a_token_is_no_target() -> None:
    cut = Windower(letter_tokenizer(), None, 0).windows("q", "ab \u200b c")
    answer = record("q", "ab \u200b c", "\u200b").fields["answers"]
    assert targets_of(cut, answer) == ([(-100, -100)], NO_TOKEN)


def test_a_long_question_is_cut_to_half_a_window_where_the_context_does_not_fit() -> None:
    windower = Windower(letter_tokenizer(), 23, 2)
    short = windower.windows("a" * 15, "b" * 5)
    assert short.question_cut is None
    assert [len(window.input_ids_T) for window in short.windows] == [23]
    cut = windower.windows("a" * 15, "b" * 12)
    assert cut.question_cut == 10
    first, second = cut.windows
    assert len(first.input_ids_T) == 23
    assert first.position == 12
    assert (second.first, second.end) == (8, 12)


def test_what_leaves_no_room_is_refused() -> None:
    with pytest.raises(BadInput) as caught:
        Windower(letter_tokenizer(), 4, 2, "data.max_seq_length")
    message = "data.max_seq_length: 4, but 3 special tokens go in first; give at least 5"
    assert str(caught.value) == message
    (window, *_) = Windower(letter_tokenizer(), 5, 2).windows("ab", "cd").windows
    assert isinstance(window, Window)
    assert len(window.input_ids_T) == 5


def test_a_slow_tokenizer_is_refused() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(BadInput) as caught:
        Windower(Slow(), None, 0)  # type: ignore[arg-type]
    assert str(caught.value) == (
        "model.tokenizer_name: a slow tokenizer, which does not tell where in a text its tokens "
        "stand; name one with a tokenizer.json"
    )


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 60), st.integers(1, 20), st.integers(0, 30))
def test_spans_cover_all_and_share_the_stride(length: int, room: int, stride: int) -> None:
    found = [*spans(length, room, stride)]
    assert found[0][0] == 0
    assert found[-1][1] == length
    assert all(end - start <= room for start, end in found)
    shared = min(stride, room // 2)
    for (_, end), (start, _) in pairwise(found):
        assert end - start == shared
