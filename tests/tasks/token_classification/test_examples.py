"""What `bigft check` shows of labelled words."""

from __future__ import annotations

from bigft.data.records import Record
from bigft.tasks.token_classification.examples import EXAMPLES, LABELS, WORDS, by_label, tagged


def sentence(*pairs: tuple[str, str | None]) -> Record:
    fields = {"tokens": [word for word, _ in pairs], "tags": [tag for _, tag in pairs]}
    return Record(0, fields, "a.jsonl", 1)


ROMAN = sentence(("Ada", "B-PER"), ("Lee", "I-PER"), ("saw", "O"), ("Rom", "B-LOC"), ("x", None))


def test_words_stand_beside_their_tags() -> None:
    assert tagged(ROMAN) == "  Ada/B-PER Lee/I-PER saw Rom/B-LOC x/null"
    line = tagged(sentence(*[("a", "O")] * (WORDS + 1)))
    assert line.count("a") == WORDS
    assert line.endswith(" ...")


def test_every_type_has_its_entities_whole_and_each_once() -> None:
    labels = ["O", "B-LOC", "I-LOC", "B-MISC", "I-MISC", "B-PER", "I-PER"]
    expected = ["  LOC: Rom", "  MISC: none", "  PER: Ada Lee"]
    assert list(by_label([ROMAN, ROMAN], labels)) == expected


def test_of_plain_labels_words_are_shown() -> None:
    record = sentence(("dogs", "NOUN"), ("run", "VERB"), ("cats", "NOUN"), ("!", None))
    assert list(by_label([record], ["NOUN", "VERB"])) == [
        "  NOUN: dogs, cats",
        "  VERB: run",
    ]


def test_many_entities_and_many_types_are_cut_short() -> None:
    record = sentence(*((f"w{n}", "X") for n in range(EXAMPLES + 1)))
    assert list(by_label([record], ["X"])) == ["  X: w0, w1, w2, w3, w4"]
    lines = list(by_label([], [f"L{n}" for n in range(LABELS + 2)]))
    assert len(lines) == LABELS + 1
    assert lines[-1] == "  and 2 more"
