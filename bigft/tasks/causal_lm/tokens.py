"""A text as tokens that know where they stand in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Tokens(NamedTuple):
    """Of a text: ids, and at which character each token starts and ends."""

    ids_T: list[int]
    starts_T: NDArray[np.int64]
    ends_T: NDArray[np.int64]

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, text: str) -> Tokens:
        encoded = tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        starts_T, ends_T = np.array(encoded["offset_mapping"]).reshape(-1, 2).T
        return cls(encoded["input_ids"], starts_T, ends_T)

    def holding(self, start: int, end: int) -> slice:
        """The tokens that hold any of these characters."""
        return slice(
            int(np.searchsorted(self.ends_T, start, side="right")),
            int(np.searchsorted(self.starts_T, end, side="left")),
        )

    def extent(self, start: int, end: int) -> slice:
        """These characters, and what else the tokens hold that hold them."""
        held = self.holding(start, end)
        starts, ends = self.starts_T[held].tolist(), self.ends_T[held].tolist()
        return slice(min([start, *starts]), max([end, *ends]))
