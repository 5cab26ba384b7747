"""Where the words of a running text lie."""

from __future__ import annotations

import unicodedata
from collections.abc import Collection
from functools import lru_cache

import regex

# No white space to Unicode, but nothing to read either: both separate words.
INVISIBLE_SEPARATORS = "\u200b\ufeff"

# Scripts written without spaces, where each character is a word: Han, Kana, and Han's extensions.
SINGLE_RANGES = (
    (0x3005, 0x3007),
    (0x3040, 0x30FF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x323AF),
)

# Scripts without spaces between words, beside those of Chinese and Japanese, by ISO 15924.
UNSPACED = (
    *("Thai", "Laoo", "Khmr", "Mymr", "Tibt", "Tale", "Talu", "Lana", "Tavt", "Yiii"),
    *("Java", "Bali"),
)
OF_UNSPACED = regex.compile(
    "[" + "".join(rf"\p{{scx={script}}}" for script in ("Hani", "Hira", "Kana", *UNSPACED)) + "]"
)


def split_words(text: str, cuts: Collection[int] = ()) -> list[tuple[int, int]]:
    """(start, end) of each word, in characters, end exclusive.

    Letters and digits run together; a punctuation mark, a symbol and a Chinese or Japanese
    character is a word by itself; combining marks and joiners belong to what they follow.

    Args:
        cuts: offsets in [0, len(text)] where a word ends in any case (the borders of spans).
    """
    words: list[tuple[int, int]] = []
    start, open_kind = 0, "space"
    for position, character in enumerate(text):
        kind = _kind(character)
        joins = kind == "mark" or (kind == "letter" and open_kind == "letter")
        if open_kind == "space" or not joins or position in cuts:
            if open_kind != "space":
                words.append((start, position))
            start, open_kind = position, "letter" if kind == "mark" else kind
    if open_kind != "space":
        words.append((start, len(text)))
    return words


def within_word(text: str, offset: int) -> bool:
    """Whether a word certainly goes on over the offset: a digit follows a digit, or a letter a
    letter in a script with capitals (Latin, Greek, Cyrillic, Armenian), which all write spaces.

    In others words and what is joined to them may be written together (Thai, Korean, Arabic).
    """
    if not 0 < offset < len(text):
        return False
    sides = text[offset - 1], text[offset]
    have_capitals = all(side.lower() != side.upper() for side in sides)
    are_joined = all(_kind(side) == "letter" for side in sides)
    return are_joined and (have_capitals or all(map(str.isdigit, sides)))


def words_meet(text: str, end: int, start: int) -> bool:
    """Whether what ends at `end` and what begins at `start`, there or behind it, are two words for
    sure: white space begins between them or with the latter, or one of the characters that meet is
    of a script without spaces, and the latter is not joined to the former (a vowel sign)."""
    if any(map(str.isspace, text[end : start + 1])):
        return True
    before, behind = text[start - 1 : start], text[start : start + 1]
    if not before or not behind or _kind(behind) == "mark":
        return False
    return _is_unspaced(before) or _is_unspaced(behind)


@lru_cache(maxsize=65536)
def _is_unspaced(character: str) -> bool:
    return OF_UNSPACED.match(character) is not None


@lru_cache(maxsize=65536)
def _kind(character: str) -> str:
    category = unicodedata.category(character)
    if character.isspace() or character in INVISIBLE_SEPARATORS or category == "Cc":
        return "space"
    if category[0] == "M" or category == "Cf":
        return "mark"
    if any(first <= ord(character) <= last for first, last in SINGLE_RANGES):
        return "single"
    return "letter" if category[0] in "LN" else "single"
