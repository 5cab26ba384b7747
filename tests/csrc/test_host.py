"""bigft._host against plain Python: same spans, same bins, and errors that say what is wrong."""

from __future__ import annotations

import threading
import time
from itertools import groupby

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from seqeval.metrics.sequence_labeling import get_entities
from seqeval.scheme import IOB2, IOBES, Entities

from bigft import _host

O, B, I, E, S = range(5)  # noqa: E741
X, Y = 0, 1
TAGS = [(O, 0)] + [(prefix, kind) for prefix in (B, I, E, S) for kind in (X, Y)]
IOB2_TAGS = [tag for tag in TAGS if tag[0] in (O, B, I)]


def decode(sentences, convention, tag_set=None):
    """Sentences are lists of (prefix, type); `tag_set` defaults to all tags of IOBES."""
    tag_set = tag_set or TAGS
    tags = [tag_set.index(tag) for sentence in sentences for tag in sentence]
    offsets = np.cumsum([0, *map(len, sentences)], dtype=np.int64)
    prefix, kind = np.array(tag_set).T
    spans = _host.decode_spans(
        np.array(tags, np.int32), offsets, prefix.astype(np.int8), kind.astype(np.int32), convention
    )
    assert spans.dtype == np.int32
    return [tuple(span) for span in spans.tolist()]


@pytest.mark.parametrize(
    ("sentence", "strict_iob2", "strict_iobes", "conlleval"),
    [
        ([(B, X), (I, X), (O, 0)], [(0, 2)], [], [(0, 2)]),
        ([(B, X), (B, X)], [(0, 1), (1, 2)], [], [(0, 1), (1, 2)]),
        ([(O, 0), (I, X), (I, X)], [], [], [(1, 3)]),
        ([(B, X), (I, Y)], [(0, 1)], [], [(0, 1), (1, 2)]),
        ([(B, X), (I, X), (E, X)], None, [(0, 3)], [(0, 3)]),
        ([(B, X), (E, X), (I, X)], None, [(0, 2)], [(0, 2), (2, 3)]),
        ([(S, X), (E, X), (S, Y)], None, [(0, 1), (2, 3)], [(0, 1), (1, 2), (2, 3)]),
    ],
)
def test_each_convention_finds_its_chunks(sentence, strict_iob2, strict_iobes, conlleval):
    def bounds(convention, tag_set=None):
        return [(start, end) for _, start, end, _ in decode([sentence], convention, tag_set)]

    if strict_iob2 is not None:
        assert bounds("strict", IOB2_TAGS) == strict_iob2
    assert bounds("strict") == strict_iobes
    assert bounds("conlleval") == conlleval


def as_text(tag):
    return "O" if tag[0] == O else f"{'OBIES'[tag[0]]}-{'XY'[tag[1]]}"


@pytest.mark.parametrize(("tag_set", "scheme"), [(IOB2_TAGS, IOB2), (TAGS, IOBES)])
@settings(deadline=None)
@given(data=st.data())
def test_spans_are_those_of_seqeval_whatever_the_tags(tag_set, scheme, data):
    sentence = data.draw(st.lists(st.sampled_from(tag_set), min_size=1, max_size=10))
    tags = [as_text(tag) for tag in sentence]

    def ours(convention):
        return [("XY"[kind], *span) for _, *span, kind in decode([sentence], convention, tag_set)]

    strict = Entities([tags], scheme).entities[0]
    assert ours("strict") == [(entity.tag, entity.start, entity.end) for entity in strict]
    lenient = get_entities(tags)
    assert ours("conlleval") == [(kind, start, last + 1) for kind, start, last in lenient]


@settings(deadline=None)
@given(st.lists(st.lists(st.sampled_from(TAGS), max_size=8), max_size=6))
def test_a_span_never_crosses_a_sentence(sentences):
    for convention in ("strict", "conlleval"):
        together = decode(sentences, convention)
        alone = [
            (number, *span[1:])
            for number, sentence in enumerate(sentences)
            for span in decode([sentence], convention)
        ]
        assert together == alone


def test_arrays_that_are_not_contiguous_are_read_right():
    tags = np.array([1, 9, 3, 9, 0, 9], np.int32)[::2]
    spans = _host.decode_spans(
        tags, np.array([0, 3]), np.array([O, B, E, I], np.int8), np.zeros(4, np.int32), "conlleval"
    )
    assert spans.tolist() == [[0, 0, 2, 0]]


GOOD = {
    "tags": np.zeros(3, np.int32),
    "offsets": np.array([0, 3]),
    "prefix": np.zeros(2, np.int8),
    "type": np.zeros(2, np.int32),
    "convention": "strict",
}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"tags": [0, 1]}, TypeError, "tags: expected a one-dimensional int32 array, found list"),
        ({"tags": np.zeros(3)}, TypeError, "tags: .* int32 array, found 1-dimensional float64"),
        ({"type": np.zeros((2, 1), np.int32)}, TypeError, "type: .*, found 2-dimensional int32"),
        ({"type": np.zeros(3, np.int32)}, ValueError, "type: expected one per prefix, 2, found 3"),
        ({"offsets": np.array([], int)}, ValueError, "offsets: .*, found none"),
        ({"offsets": np.array([1, 3])}, ValueError, r"offsets\[0\]: expected 0, found 1"),
        ({"offsets": np.array([0, 2, 1, 3])}, ValueError, r"offsets\[2\]: .* least 2, found 1"),
        ({"offsets": np.array([0, 4])}, ValueError, r"offsets\[1\]: .* tags, 3, found 4"),
        ({"tags": np.array([0, 2, 0], np.int32)}, ValueError, r"tags\[1\]: .* below 2, found 2"),
        ({"tags": np.array([0, 0, -1], np.int32)}, ValueError, r"tags\[2\]: .*, found -1"),
        ({"prefix": np.array([0, 5], np.int8)}, ValueError, r"prefix\[1\]: .* to 4 .*, found 5"),
        ({"convention": "loose"}, ValueError, 'expected "strict" or "conlleval", found "loose"'),
    ],
)
def test_decode_spans_names_what_does_not_fit(change, error, message):
    assert _host.decode_spans(**GOOD).shape == (0, 4)
    with pytest.raises(error, match=message):
        _host.decode_spans(**{**GOOD, **change})


def first_fit_decreasing(lengths, capacity, window):
    """The definition, bin after bin."""
    bins, num_bins = [0] * len(lengths), 0
    for begin in range(0, len(lengths), window):
        room = []
        for sample in longest_first(lengths, begin, window):
            fitting = (bin_ for bin_, left in enumerate(room) if left >= lengths[sample])
            bin_ = next(fitting, len(room))
            if bin_ == len(room):
                room.append(capacity)
            room[bin_] -= lengths[sample]
            bins[sample] = num_bins + bin_
        num_bins += len(room)
    return bins


def length_ordered(lengths, capacity, window):
    bins, num_bins = [0] * len(lengths), 0
    for begin in range(0, len(lengths), window):
        left = 0
        for sample in longest_first(lengths, begin, window):
            if lengths[sample] > left:
                num_bins, left = num_bins + 1, capacity
            left -= lengths[sample]
            bins[sample] = num_bins - 1
    return bins


def longest_first(lengths, begin, window):
    inside = range(begin, min(begin + window, len(lengths)))
    return sorted(inside, key=lambda index: (-lengths[index], index))


PACKERS = {
    "first_fit_decreasing": (_host.pack_first_fit_decreasing, first_fit_decreasing),
    "length_ordered": (_host.pack_length_ordered, length_ordered),
}
every_packer = pytest.mark.parametrize("name", PACKERS)


def pack(name, lengths, capacity, window):
    return PACKERS[name][0](np.array(lengths, np.int64), capacity, window).tolist()


@every_packer
@settings(deadline=None)
@given(
    st.integers(1, 70_000).flatmap(  # lengths of one byte, of two and of three
        lambda capacity: st.tuples(
            st.lists(st.integers(1, capacity) | st.integers(1, min(capacity, 20)), max_size=60),
            st.just(capacity),
        )
    ),
    st.integers(1, 70),
)
def test_bins_are_those_of_the_definition(name, problem, window):
    lengths, capacity = problem
    bins = pack(name, lengths, capacity, window)
    assert bins == PACKERS[name][1](lengths, capacity, window)
    by_bin = sorted(range(len(bins)), key=bins.__getitem__)
    totals = [sum(lengths[i] for i in group) for _, group in groupby(by_bin, bins.__getitem__)]
    assert all(total <= capacity for total in totals)
    assert sorted(set(bins)) == list(range(len(totals)))


@every_packer
def test_samples_share_bins_only_within_their_window(name):
    assert pack(name, [5, 5, 5, 5], capacity=20, window=2) == [0, 0, 1, 1]
    assert pack(name, [5, 5, 5, 5], capacity=20, window=10**15) == [0, 0, 0, 0]


def test_first_fit_fills_gaps_and_length_ordered_keeps_like_lengths_together():
    lengths = [9, 8, 7, 3, 2, 1]
    assert pack("first_fit_decreasing", lengths, 10, 6) == [0, 1, 2, 2, 1, 0]
    assert pack("length_ordered", lengths, 10, 6) == [0, 1, 2, 2, 3, 3]


@every_packer
def test_lengths_near_the_largest_integer_are_packed(name):
    huge = 2**62
    assert pack(name, [huge, huge, 1], huge, 3) == [0, 1, 2]
    assert pack(name, [], 10, 3) == []


@every_packer
@pytest.mark.parametrize(
    ("lengths", "window", "message"),
    [
        ([3, 9, 11], 4, r"lengths\[2\]: expected 1 up to the capacity, 10, found 11"),
        ([3, 0], 4, r"lengths\[1\]: expected 1 up to the capacity, 10, found 0"),
        ([3], 0, "window: expected at least 1, found 0"),
    ],
)
def test_packing_names_what_does_not_fit(name, lengths, window, message):
    with pytest.raises(ValueError, match=f"pack_{name}: {message}"):
        pack(name, lengths, 10, window)
    with pytest.raises(TypeError, match=f"pack_{name}: lengths: expected a one-dimensional int64"):
        PACKERS[name][0](np.array([1.5]), 10, 4)


@every_packer
def test_other_threads_run_while_the_loop_does(name):
    """Holding the GIL, the loop would let the counting thread take no turn until it ends."""
    lengths = np.random.default_rng(0).integers(1, 512, 3_000_000)
    turns, done = [], threading.Event()

    def count():
        while not done.is_set():
            turns.append(time.perf_counter())
            time.sleep(0.001)

    counter = threading.Thread(target=count)
    counter.start()
    begin = time.perf_counter()
    PACKERS[name][0](lengths, 512, 3_000_000)
    end = time.perf_counter()
    done.set()
    counter.join()
    assert sum(begin < turn < end for turn in turns) >= 3
