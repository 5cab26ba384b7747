"""Which tokens of a row the model must find, and what it sees in their place."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bigft.data.records import IGNORE_INDEX

Ids = NDArray[np.int64]


class Masking(NamedTuple):
    """probability: that a word is chosen.

    mask_share, random_share: of the chosen tokens, those that become `mask_id` and those that
        become one of `random_ids`, each as likely as the others; the rest stay.
    """

    probability: float
    mask_share: float
    random_share: float
    mask_id: int
    random_ids: Ids


def masked(
    ids_T: Ids,
    is_maskable_T: NDArray[np.bool_],
    begins_T: NDArray[np.bool_],
    draw: int,
    how: Masking,
) -> tuple[Ids, Ids]:
    """(input_ids_T, labels_T) of a row: the token itself is the label where it was chosen, and
    IGNORE_INDEX elsewhere. A function of the arguments alone.

    Each word is chosen for itself, with the same probability: so is each token, and of a row none
    may be. What becomes of the tokens of a chosen word is drawn for each of them.

    is_maskable_T: what may be chosen at all.  begins_T: where a word begins; all True: each token
        is chosen for itself.
    draw: an address, `Row.draw`.
    """
    chosen, becomes, which = _uniform(draw, 3 * len(ids_T)).reshape(3, -1)
    places_T = np.arange(len(ids_T))
    first_T = np.maximum.accumulate(np.where(begins_T, places_T, 0))  # of the token's word
    is_target_T = (chosen < how.probability)[first_T] & is_maskable_T
    random_T = how.random_ids[(which * len(how.random_ids)).astype(np.int64)]
    is_masked_T = becomes < how.mask_share
    is_random_T = ~is_masked_T & (becomes < how.mask_share + how.random_share)
    seen_T = np.where(is_masked_T, how.mask_id, np.where(is_random_T, random_T, ids_T))
    return np.where(is_target_T, seen_T, ids_T), np.where(is_target_T, ids_T, IGNORE_INDEX)


def _uniform(draw: int, size: int) -> NDArray[np.float64]:
    """Numbers in [0, 1), of 53 bits each."""
    # Raw bits: numpy keeps those the same in every version, Generator.random not.
    bits = np.random.Philox(draw).random_raw(size) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53
