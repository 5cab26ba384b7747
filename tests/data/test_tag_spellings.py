"""Tags that are written otherwise are read as what they are; labels that only look so are not."""

from __future__ import annotations

import pytest

from bigft.config.tag_names import SPELLINGS, usual_names
from bigft.data.tag_schemes import Scheme
from bigft.data.tag_spellings import (
    Tagging,
    detect_tagging,
    respelled,
    tagging_notes,
)

PLAIN = Tagging(Scheme.NONE)
BIO = [["B-PER", "I-PER", "O"], ["B-GPE_LOC-2", "I-GPE_LOC-2", "B-PER"]]
IOBES = [["B-PER", "E-PER", "O"], ["S-GPE_LOC-2", "O", "B-PER", "I-PER", "E-PER"]]
IOB1 = [["I-PER", "B-PER", "O"], ["I-GPE_LOC-2", "O"]]


def written(tag: str, spelling: str) -> str:
    if tag == "O":
        return tag
    prefix, _, entity_type = tag.partition("-")
    return spelling.replace("B", "\0").replace("X", entity_type).replace("\0", prefix)


@pytest.mark.parametrize(("scheme", "usual"), [("BIO", BIO), ("IOBES", IOBES), ("IOB1", IOB1)])
@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("small", [False, True])
def test_any_spelling_is_read_as_the_usual_one(
    scheme: str, usual: list[list[str]], spelling: str, small: bool
) -> None:
    """Types hold hyphens and underscores, as the spellings do."""
    corpus = [[written(tag, spelling) for tag in tags] for tags in usual]
    if small:
        usual = [[f"{tag[:1]}{tag[1:].lower()}" for tag in tags] for tags in usual]
        corpus = [[tag.lower() for tag in tags] for tags in corpus]
    found = detect_tagging(corpus)
    assert found.scheme == scheme
    assert [respelled(tags, found.spelling) for tags in corpus] == usual
    expected = None if spelling == "B-X" and not small else spelling
    assert found.spelling == expected


@pytest.mark.parametrize("outside", ["o", "0", "OUT", "Other", "_", "*"])
def test_what_is_outside_may_have_another_name(outside: str) -> None:
    corpus = [["B-PER", "I-PER", outside, outside], [outside] * 5]
    assert detect_tagging(corpus) == Tagging(Scheme.BIO, "B-X")
    assert respelled(corpus[0], "B-X") == ["B-PER", "I-PER", "O", "O"]


@pytest.mark.parametrize("outside", ["o", "0", "OUT", "Other", "_", "*"])
@pytest.mark.parametrize("tags", [["B-PER", "I-PER"] * 3, ["B-PER"] * 3, ["B-PER", "E-PER"] * 3])
def test_tags_may_outnumber_what_is_outside(tags: list[str], outside: str) -> None:
    found = detect_tagging([[*tags, outside]])
    assert found == Tagging(Scheme.IOBES if "E-PER" in tags else Scheme.BIO, "B-X")
    assert respelled([*tags, outside], found.spelling) == [*tags, "O"]


def test_only_a_mistyped_o_is_outside_beside_an_o() -> None:
    tags = ["B-PER", "I-PER", "B-LOC", "O"]
    assert detect_tagging([[*tags, "o", "0"]]) == Tagging(Scheme.BIO, "B-X")
    assert detect_tagging([[*tags, "OTHER"]]) == Tagging(Scheme.BIO)  # refused: it may be a type


def test_tags_that_are_usual_but_for_a_few_are_not_respelled() -> None:
    corpus = [["B-PER", "I-PER"], ["B-LOC", "O"], ["B_LOC", "o"]]
    assert detect_tagging(corpus) == Tagging(Scheme.BIO)
    assert respelled(corpus[2], None) == ["B_LOC", "o"]


LOOK_ALIKES = {
    "bacteria": [["E_coli", "O", "S_aureus", "O"], ["B_subtilis", "O", "E_coli"]],
    "hepatitis": [["HEPATITIS-B", "O", "HEPATITIS-E"], ["O", "HEPATITIS-B"]],
    "vitamins, one a letter of no scheme": [["VITAMIN_B", "O"], ["VITAMIN_C", "VITAMIN_B"]],
    "one label is no evidence": [["PLAN-B", "O", "O"], ["O", "PLAN-B"]],
    "two spellings": [["B-PER", "I-PER", "B_LOC", "I_LOC", "O"]],
    "a plain one among them": [["PER-B", "PER-I", "O", "MISC"]],
}


@pytest.mark.parametrize("corpus", LOOK_ALIKES.values(), ids=LOOK_ALIKES)
def test_labels_of_which_some_only_look_like_tags_stay_plain_with_a_note(
    corpus: list[list[str]],
) -> None:
    assert detect_tagging(corpus) == PLAIN
    (note,) = tagging_notes(PLAIN, corpus)
    assert "of them in the form of a tag" in note
    assert note.endswith("if entities are meant, write all labels as O, B-X and I-X")


def test_plain_labels_with_one_for_outside_are_noted() -> None:
    corpus = [["DRUG", "O", "O"], ["O", "DISEASE"]]
    assert detect_tagging(corpus) == PLAIN
    assert tagging_notes(PLAIN, corpus) == [
        "the 3 labels are read as plain ones (DISEASE, DRUG, O): words are scored, not entities; "
        "if entities are meant, write all labels as O, B-X and I-X"
    ]


@pytest.mark.parametrize(
    "corpus",
    [
        [["NOUN", "VERB", "PUNCT", "X", "_"]],
        [["NN", ",", "-LRB-", ".", ":", "PRP$", "``"]],
        [["B-PER", "I-PER", "O"]],
        [["O", "O"]],
        [],
    ],
)
def test_parts_of_speech_and_usual_tags_need_no_note(corpus: list[list[str]]) -> None:
    assert tagging_notes(detect_tagging(corpus), corpus) == []


def test_what_was_respelled_is_noted() -> None:
    corpus = [["PER-B", "PER-I", "O"]]
    assert tagging_notes(detect_tagging(corpus), corpus) == [
        "2 of 3 labels are respelled: PER-B as B-PER, PER-I as I-PER"
    ]


def test_a_tagging_comes_back_from_json() -> None:
    for tagging in (Tagging(Scheme.IOB1), Tagging(Scheme.BIO, "X_B")):
        assert Tagging.of([str(tagging.scheme), tagging.spelling]) == tagging
    assert Tagging.of(None) is None


@pytest.mark.parametrize(
    ("corpus", "names"),
    [
        ([["B-PER", "I-PER", "B-per", "O"]], "PER, per"),
        ([["NOUN", "Noun", "VERB"]], "NOUN, Noun"),
        ([["PER-B", "PER-I", "per-B", "O"]], "PER, per"),
    ],
)
def test_labels_that_differ_in_case_only_are_noted(corpus: list[list[str]], names: str) -> None:
    notes = tagging_notes(detect_tagging(corpus), corpus)
    assert f"labels that differ in case only are different ones: {names}" in notes


def test_brackets_of_older_corpora_are_noted_as_plain() -> None:
    corpus = [["(PER*", "*)", "*", "(PER)", "(LOC*", "*", "*)"]]
    (note,) = tagging_notes(detect_tagging(corpus), corpus)
    assert "in the form of a tag ((LOC*, (PER), (PER*, *))" in note
    punctuation = [["(", ")", "*", "NOUN", "``"]]
    assert tagging_notes(detect_tagging(punctuation), punctuation) == []


def test_a_training_set_of_one_plain_label_is_noted() -> None:
    assert tagging_notes(PLAIN, [["NOUN", "NOUN"], ["NOUN"]]) == [
        "every label of the training set is 'NOUN': there is nothing to tell apart"
    ]


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_the_labels_of_a_model_are_read_in_every_spelling(spelling: str) -> None:
    names = ["O", "B-PER", "I-PER", "B-GPE_LOC-2"]
    assert usual_names([written(name, spelling) for name in names]) == names
    lower = [written(name, spelling) for name in ["O", "b-per", "i-per"]]
    assert usual_names(lower) == ["O", "B-per", "I-per"]


@pytest.mark.parametrize(
    "labels", [["NOUN", "VERB"], ["E_coli", "yeast"], ["O", "B-X", "b-X"], ["LABEL_0", "LABEL_1"]]
)
def test_labels_that_are_no_tags_or_the_same_one_stay_as_they_are(labels: list[str]) -> None:
    assert usual_names(labels) == labels
