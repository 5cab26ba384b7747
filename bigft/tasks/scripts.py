"""The script that texts are written in, where it tells how words are found: ISO 15924's names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import regex

from bigft.data.words import UNSPACED

# What tells a script, by ISO 15924. In their order, for Japanese and Korean hold Han too.
MARKS = {
    "Jpan": regex.compile(r"[\p{Script=Hiragana}\p{Script=Katakana}]"),
    "Kore": regex.compile(r"\p{Script=Hangul}"),
    "Hani": regex.compile(r"\p{Script=Han}"),
    **{script: regex.compile(rf"\p{{Script={script}}}") for script in UNSPACED},
}


def script_in(texts: Iterable[str]) -> str | None:
    """Which of MARKS most texts hold; None: most hold none of them, or there are no texts."""
    held = Counter(
        next((script for script, mark in MARKS.items() if mark.search(text)), None)
        for text in texts
    )
    return held.most_common(1)[0][0] if held else None
