"""The example corpus is what its README says: sizes, valid BIO, no test name in training."""

from __future__ import annotations

from collections import Counter
from itertools import combinations, pairwise
from pathlib import Path

import pytest

CORPUS = Path(__file__).resolve().parents[2] / "examples" / "ner"
TAGS = {"O"} | {f"{prefix}-{kind}" for prefix in "BI" for kind in ("PER", "ORG", "LOC")}
ENGLISH = ("train", "dev", "test")
PAIRS = list(combinations(ENGLISH, 2))
SPLITS = (*ENGLISH, "zh")
# Words that say what a thing is, and not which one: they may stand in names of two splits.
COMMON_WORDS = {"bank", "hospital", "museum", "royal", "university"}

Sentence = list[tuple[str, ...]]  # (token, tag) of each line


def read(split: str) -> list[Sentence]:
    blocks = (CORPUS / f"{split}.conll").read_text(encoding="utf-8").rstrip("\n").split("\n\n")
    return [[tuple(line.split("\t")) for line in block.split("\n")] for block in blocks]


def entities(sentence: Sentence) -> list[tuple[str, list[str]]]:
    """(type, words) of each entity."""
    found: list[tuple[str, list[str]]] = []
    for word, tag in sentence:
        if tag.startswith("B-"):
            found.append((tag[2:], [word]))
        elif tag.startswith("I-"):
            found[-1][1].append(word)
    return found


def names(split: str) -> list[list[str]]:
    return [words for sentence in read(split) for _, words in entities(sentence)]


def name_words(split: str) -> set[str]:
    """Capitalised parts of all names, lower-cased: `Mei-Ling Zhou` gives mei, ling and zhou."""
    parts = {part for words in names(split) for word in words for part in word.split("-")}
    return {part.lower() for part in parts if part[0].isupper()} - COMMON_WORDS


def words_of(sentence: Sentence) -> tuple[str, ...]:
    return tuple(word.lower() for word, _ in sentence)


@pytest.mark.parametrize("split", SPLITS)
def test_every_line_is_a_token_a_tab_and_a_known_tag(split: str) -> None:
    for sentence in read(split):
        for columns in sentence:
            assert len(columns) == 2, columns
            assert columns[0].split() == [columns[0]], columns
            assert columns[1] in TAGS, columns


@pytest.mark.parametrize("split", SPLITS)
def test_an_inside_tag_continues_an_entity_of_its_own_type(split: str) -> None:
    for sentence in read(split):
        tags = ["O", *(tag for _, tag in sentence)]
        for before, tag in pairwise(tags):
            assert not tag.startswith("I-") or before[1:] == tag[1:], sentence


def test_chinese_has_one_character_per_line() -> None:
    assert {len(character) for sentence in read("zh") for character, _ in sentence} == {1}


def test_the_readme_states_the_counts_of_every_split() -> None:
    readme = (CORPUS / "README.md").read_text(encoding="utf-8")
    for split in SPLITS:
        sentences = read(split)
        kinds = Counter(kind for sentence in sentences for kind, _ in entities(sentence))
        without = sum(not entities(sentence) for sentence in sentences)
        numbers = (
            len(sentences),
            sum(map(len, sentences)),
            kinds["PER"],
            kinds["ORG"],
            kinds["LOC"],
            without,
        )
        row = f"| `{split}.conll` | " + " | ".join(f"{number:,}" for number in numbers) + " |"
        assert row in readme


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_no_word_of_a_name_stands_in_names_of_two_splits(one: str, other: str) -> None:
    assert name_words(one) & name_words(other) == set()


@pytest.mark.parametrize("seen", ["train", "dev"])
def test_no_test_name_occurs_anywhere_in_another_split(seen: str) -> None:
    text = "\n".join(" ".join(["", *(word for word, _ in s), ""]) for s in read(seen))
    assert [name for name in names("test") if f" {' '.join(name)} " in text] == []


def test_no_sentence_occurs_twice() -> None:
    counts = Counter(words_of(sentence) for split in SPLITS for sentence in read(split))
    assert [sentence for sentence, count in counts.items() if count > 1] == []


@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_no_two_splits_share_five_words_in_a_row(one: str, other: str) -> None:
    """Sentences filled into one template, or edited copies, would share a longer run than this."""

    def runs(split: str) -> set[tuple[str, ...]]:
        sentences = map(words_of, read(split))
        return {words[i : i + 5] for words in sentences for i in range(len(words) - 4)}

    assert runs(one) & runs(other) == set()
