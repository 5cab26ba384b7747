"""Which tokens go on with a word."""

from __future__ import annotations

from collections.abc import Sequence

from bigft.data.words import words_meet


def continues(
    text: str, word_ids: Sequence[int | None], offsets: Sequence[tuple[int, int]]
) -> list[int]:
    """For each token of the text 1 where it belongs to the word of the token before it, else 0.

    Words are those of the tokenizer, cut where it does not cut: at white space, and between the
    characters of a script without spaces, where a word is a character, or a token of several. The
    tokens of one character stay together.

    word_ids, offsets: as the tokenizer tells them.
    """
    flags: list[int] = []
    word_before, end_before = None, 0
    for word, (start, end) in zip(word_ids, offsets, strict=True):
        is_inside = start < end_before  # a byte of the same character
        goes_on = word is not None and word == word_before and bool(flags)
        flags.append(int(goes_on and (is_inside or not words_meet(text, end_before, start))))
        word_before, end_before = word, end
    return flags
