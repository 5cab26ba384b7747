"""Host-side loops that need no torch (csrc/host). The GIL is released inside them."""

from typing import Literal

import numpy as np
from numpy.typing import NDArray

def decode_spans(
    tags: NDArray[np.int32],
    offsets: NDArray[np.int64],
    prefix: NDArray[np.int8],
    type: NDArray[np.int32],
    convention: Literal["strict", "conlleval"],
) -> NDArray[np.int32]:
    """Entity spans, one row each, in reading order: sentence, start, end (exclusive), type.

    "conlleval", as the CoNLL script: a chunk begins at B or S, and at I or E where no chunk of its
    type is open; it ends where it is not continued. "strict", as seqeval's: a chunk begins at B or
    S only, and where the tag set has an E or S (IOBES) it must also end with one.

    Args:
        tags: [num_words] tag ids of all sentences, one after another.
        offsets: [num_sentences + 1] where each sentence begins in `tags`, and the end.
        prefix: [num_tags] 0 = O, 1 = B, 2 = I, 3 = E, 4 = S.
        type: [num_tags] type id, >= 0; ignored where the prefix is O.
    Returns: [num_spans, 4]; start and end count words from the sentence's begin.
    Raises: TypeError for another dtype or shape, ValueError for values that do not fit together;
        both name the argument, what was expected and what was found.
    """

def pack_first_fit_decreasing(
    lengths: NDArray[np.int64], capacity: int, window: int
) -> NDArray[np.int64]:
    """Bin number per sample; no bin holds more than `capacity` tokens. O(N log window).

    First-fit-decreasing within consecutive windows of `window` samples. Deterministic: of equal
    lengths the earlier sample goes first. Bins count from 0, window after window, without gaps.

    Args:
        lengths: [N] each from 1 to capacity.
        window: >= 1; how many consecutive samples may share bins.
    Raises: TypeError for another dtype or shape; ValueError naming the first bad length.
    """

def pack_length_ordered(
    lengths: NDArray[np.int64], capacity: int, window: int
) -> NDArray[np.int64]:
    """As pack_first_fit_decreasing, but samples of like lengths share bins. O(N).

    In each window the samples fill, by falling length, one bin after the other: a bin is closed
    when the next sample does not fit.
    """
