"""Tagging schemes: found from a corpus, checked, and brought to BIO without losing an entity."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bigft.data.tag_schemes import Scheme, detect_scheme, scheme_violations, split_tag, to_bio

ENCODED = [scheme for scheme in Scheme if scheme is not Scheme.NONE]


@st.composite
def segmentations(draw):
    """A sentence as [(type or None for outside, number of words)]."""
    entity = st.tuples(st.sampled_from(["PER", "LOC", "B-2", ""]), st.integers(1, 4))
    outside = st.tuples(st.none(), st.integers(1, 3))
    return draw(st.lists(st.one_of(entity, entity, outside), max_size=8))


def encode(segments, scheme):
    """The tags that the scheme's definition gives to a segmentation."""
    inside, last, single = {
        Scheme.BIO: "IIB",
        Scheme.IOB1: "IIB",
        Scheme.IOBES: "IES",
        Scheme.BILOU: "ILU",
        Scheme.BMES: "MES",
    }[scheme]
    tags, previous = [], None
    for kind, length in segments:
        if kind is None:
            tags += ["O"] * length
        else:
            prefixes = [single] if length == 1 else ["B", *[inside] * (length - 2), last]
            if scheme is Scheme.IOB1 and kind != previous:
                prefixes[0] = "I"
            tags += [f"{prefix}-{kind}" if kind else prefix for prefix in prefixes]
        previous = kind
    return tags


@pytest.mark.parametrize("scheme", ENCODED)
@settings(deadline=None)
@given(segments=segmentations())
def test_to_bio_is_the_bio_tagging_of_the_same_entities(scheme, segments):
    tags = encode(segments, scheme)
    assert scheme_violations(tags, scheme) == []
    assert to_bio(tags, scheme) == encode(segments, Scheme.BIO)


@pytest.mark.parametrize("scheme", ENCODED)
@settings(deadline=None)
@given(corpus=st.lists(segmentations(), max_size=10))
def test_the_detected_scheme_fits_a_corpus_whatever_its_entities(scheme, corpus):
    tagged = [encode(segments, scheme) for segments in corpus]
    found = detect_scheme(tagged)
    assert all(scheme_violations(tags, found) == [] for tags in tagged)


@pytest.mark.parametrize("scheme", ENCODED)
def test_a_corpus_with_evidence_is_detected_exactly(scheme):
    corpus = [[("PER", 3), (None, 2), ("PER", 1), ("PER", 2)], [(None, 1), ("LOC", 1)]]
    assert detect_scheme([encode(segments, scheme) for segments in corpus]) is scheme


@pytest.mark.parametrize(
    ("corpus", "scheme"),
    [
        ([], Scheme.BIO),
        ([["O", "O"]], Scheme.BIO),
        ([["B-PER", "O"]], Scheme.BIO),
        ([["I-PER", "O"]], Scheme.IOB1),
        ([["B-PER", "I-PER", "O", "B-LOC"], ["O", "I-LOC"]], Scheme.BIO),
        ([["I-PER", "B-PER", "O"], ["I-LOC", "O"], ["B-LOC"]], Scheme.IOB1),
        ([["S-PER", "O"]], Scheme.IOBES),
        ([["U-PER", "O"]], Scheme.BILOU),
        ([["B-PER", "I-PER"], ["B-LOC", "O"], ["B_LOC", "O"]], Scheme.BIO),
        ([["NOUN", "VERB", "X"]], Scheme.NONE),
        ([["PER", "O", "O"]], Scheme.NONE),
        ([["NN", "M", "B", "PU"]], Scheme.NONE),
        ([["B", "I", "O"]], Scheme.BIO),
    ],
)
def test_the_scheme_is_the_one_that_the_corpus_violates_least(corpus, scheme):
    assert detect_scheme(corpus) is scheme


@pytest.mark.parametrize(
    ("tags", "scheme", "expected"),
    [
        (["O", "I-PER"], Scheme.BIO, [(1, "'I-PER' continues no entity after 'O'")]),
        (["I-PER"], Scheme.BIO, [(0, "'I-PER' continues no entity at the beginning")]),
        (["B-PER", "I-LOC"], Scheme.BIO, [(1, "'I-LOC' continues no entity after 'B-PER'")]),
        (["B-", "I-", "B"], Scheme.BIO, [(0, "'B-' names no type"), (1, "'I-' names no type")]),
        (["S-PER"], Scheme.BIO, [(0, "'S-PER' is no tag of BIO: O, B-, I-")]),
        (["B_PER"], Scheme.BIO, [(0, "'B_PER' is no tag of BIO: O, B-, I-")]),
        (["O", "B-X"], Scheme.IOB1, [(1, "'B-X' separates no entities of its type after 'O'")]),
        (["B-X", "O"], Scheme.IOBES, [(0, "the entity of 'B-X' is not ended before 'O'")]),
        (["B-X", "I-X"], Scheme.IOBES, [(1, "the entity of 'I-X' is not ended at the end")]),
        (["S-X", "E-X"], Scheme.IOBES, [(1, "'E-X' continues no entity after 'S-X'")]),
        (["U-X", "L-X"], Scheme.BILOU, [(1, "'L-X' continues no entity after 'U-X'")]),
        (["NOUN", "B-X", "I-Y"], Scheme.NONE, []),
    ],
)
def test_a_violation_names_the_word_and_why(tags, scheme, expected):
    assert scheme_violations(tags, scheme) == expected


def test_to_bio_loses_no_entity_of_a_malformed_tagging():
    tags = ["I-X", "E-X", "I-X", "O", "E-Y", "S-Y", "B-Z"]
    expected = ["B-X", "I-X", "B-X", "O", "B-Y", "B-Y", "B-Z"]
    assert to_bio(tags, Scheme.IOBES) == expected
    assert to_bio(["B_X", "S-X"], Scheme.IOBES) == ["B_X", "B-X"]


def test_bio_and_plain_tags_come_back_as_they_are():
    assert to_bio(["O", "I-X"], Scheme.BIO) == ["O", "I-X"]
    assert to_bio(["NOUN", "B-X"], Scheme.NONE) == ["NOUN", "B-X"]


@pytest.mark.parametrize(
    ("tag", "parts"),
    [
        ("O", ("O", "")),
        ("B-PER", ("B", "PER")),
        ("I-GPE-LOC", ("I", "GPE-LOC")),
        ("L-x-y", ("L", "x-y")),
        ("B", ("B", "")),
        ("NOUN", ("", "NOUN")),
        ("-LRB-", ("", "-LRB-")),
        ("O-PER", ("", "O-PER")),
    ],
)
def test_a_tag_splits_at_its_first_hyphen_only(tag, parts):
    assert split_tag(tag) == parts


@pytest.mark.real
@pytest.mark.parametrize(
    ("folder", "file", "column", "scheme"),
    [
        ("wnut17", "wnut17train.conll", -1, Scheme.BIO),
        ("broad_twitter_corpus", "btc.train", -1, Scheme.BIO),
        ("ncbi_disease", "train.tsv", -1, Scheme.BIO),
        ("wikigold", "wikigold.conll.txt", -1, Scheme.IOB1),
        ("uner_chinese_gsdsimp", "zh_gsdsimp-ud-dev.iob2", 2, Scheme.BIO),
        ("ud_english_ewt", "en_ewt-ud-dev.conllu", 3, Scheme.NONE),
    ],
)
def test_published_corpora_are_detected_as_documented(real_data, folder, file, column, scheme):
    text = (real_data(folder) / file).read_text(encoding="utf-8")
    lines = [line.split() for line in text.splitlines() if not line.startswith(("#", "-DOCSTART-"))]
    sentences, sentence = [], []
    for cells in [*lines, []]:
        if cells:
            sentence.append(cells[column])
        elif sentence:
            sentences.append(sentence)
            sentence = []
    assert len(sentences) > 100
    assert detect_scheme(sentences) is scheme
