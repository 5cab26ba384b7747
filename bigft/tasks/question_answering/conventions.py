"""Exact match and F1 of an answer, as the scripts of SQuAD and of CMRC 2018 count them."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Callable, Sequence
from typing import NamedTuple

import regex

from bigft.tasks.scripts import MARKS, script_in

ARTICLE = regex.compile(r"\b(a|an|the)\b")
ASCII_PUNCTUATION = str.maketrans("", "", string.punctuation)
# What CMRC's script takes for punctuation, a character each.
CMRC_PUNCTUATION = frozenset("-:_*^/\\~`+=\uff0c\u3002\uff1a\uff1f\uff01\u201c\u201d\uff1b\u2019"
                             "\u300a\u300b\u00b7\u3001\u300c\u300d\uff08\uff09\uff0d\uff5e\u300e"
                             "\u300f")  # fmt: skip
HAN = regex.compile("[\u4e00-\u9fa5]")  # its Chinese characters, each a segment of its own
WORD = regex.compile(r"\w+(?:[.,]\w+)*|[^\w\s]")  # of what is between them
SQUAD_SCRIPT, CMRC_SCRIPT = "SQuAD's script", "CMRC 2018's script"


class Convention(NamedTuple):
    """exact, f1: of one prediction and one gold answer, 0 to 1.  name: whose they are."""

    name: str
    exact: Callable[[str, str], float]
    f1: Callable[[str, str], float]


def convention_of(answers: Sequence[str], version_2: bool) -> Convention:
    """CMRC's where most answers are written in a script without spaces, else SQuAD's.

    version_2: of the latter the script of SQuAD 2.0, else that of 1.1. They differ in an answer of
        which nothing is left without articles and punctuation: 1.1 gives it an F1 of 0.
    """
    script = script_in(answers)
    if script is None or script == "Kore":
        return Convention(SQUAD_SCRIPT, squad_exact, squad_f1 if version_2 else squad_1_f1)
    if script == "Hani":
        return Convention(CMRC_SCRIPT, cmrc_exact, cmrc_f1)
    mark = regex.compile(f"{HAN.pattern}|{MARKS[script].pattern}")
    name = f"{CMRC_SCRIPT}, with each character of {script} a segment"
    return Convention(name, cmrc_exact, lambda one, other: cmrc_f1(one, other, mark))


def best_of(score: Callable[[str, str], float], prediction: str, answers: Sequence[str]) -> float:
    """The score against the gold answer that it is best for; "" is the one of a question that has
    none."""
    return max(score(prediction, answer) for answer in answers or [""])


# -- SQuAD --------------------------------------------------------------------------------------


def squad_words(text: str) -> list[str]:
    """Without case, ASCII punctuation, articles."""
    return ARTICLE.sub(" ", text.lower().translate(ASCII_PUNCTUATION)).split()


def squad_exact(prediction: str, answer: str) -> float:
    return float(squad_words(prediction) == squad_words(answer))


def squad_1_f1(prediction: str, answer: str) -> float:
    """Of the words that both have, however they are ordered."""
    predicted, gold = squad_words(prediction), squad_words(answer)
    return _f1((Counter(predicted) & Counter(gold)).total(), len(predicted), len(gold))


def squad_f1(prediction: str, answer: str) -> float:
    """The same; where one of the two has no word, whether the other has none either."""
    predicted, gold = squad_words(prediction), squad_words(answer)
    return squad_1_f1(prediction, answer) if predicted and gold else float(predicted == gold)


# -- CMRC ---------------------------------------------------------------------------------------


def cmrc_exact(prediction: str, answer: str) -> float:
    return float(_without_punctuation(prediction) == _without_punctuation(answer))


def cmrc_f1(prediction: str, answer: str, mark: regex.Pattern[str] = HAN) -> float:
    """Of the longest run of segments that both have."""
    predicted, gold = cmrc_segments(prediction, mark), cmrc_segments(answer, mark)
    if not predicted or not gold:  # no answer, which CMRC's script never meets
        return float(predicted == gold)
    return _f1(_longest_run(predicted, gold), len(predicted), len(gold))


def cmrc_segments(text: str, mark: regex.Pattern[str] = HAN) -> list[str]:
    """Without case and punctuation; what `mark` matches is a segment of its own."""
    marked = regex.sub(f"({mark.pattern})", r" \1 ", _without_punctuation(text))
    return WORD.findall(marked)


def _without_punctuation(text: str) -> str:
    return "".join(char for char in text.lower().strip() if char not in CMRC_PUNCTUATION)


def _longest_run(one: Sequence[str], other: Sequence[str]) -> int:
    longest, ending = 0, [0] * (len(other) + 1)  # at each place of `other`
    for segment in one:
        before = ending
        ending = [0] * (len(other) + 1)
        for at, theirs in enumerate(other, 1):
            if segment == theirs:
                ending[at] = before[at - 1] + 1
                longest = max(longest, ending[at])
    return longest


def _f1(common: int, predicted: int, gold: int) -> float:
    return 2 * common / (predicted + gold) if common else 0.0
