"""A text as tokens that know where they stand in it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bigft.tasks.spelling import Spelling

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# White space, characters of several bytes, and more of both than a token holds.
PROBE = "a\n\n  b.\t\u00e9\u4f60\u597d \U0001f600\u00a0 c\r\n "


class Tokens(NamedTuple):
    """Of a text: ids, and at which character each token starts and ends."""

    ids_T: list[int]
    starts_T: NDArray[np.int64]
    ends_T: NDArray[np.int64]

    def holding(self, start: int, end: int) -> slice:
        """The tokens that hold any of these characters."""
        return slice(
            int(self.ends_T.searchsorted(start, "right")),
            int(self.starts_T.searchsorted(end, "left")),
        )

    def extent(self, start: int, end: int) -> slice:
        """These characters, and what else the tokens hold that hold them."""
        held = self.holding(start, end)
        return slice(
            int(self.starts_T[held].min(initial=start)), int(self.ends_T[held].max(initial=end))
        )


class Tokenization:
    """Texts of one tokenizer as Tokens, without a token around them that they do not write."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._spelling = Spelling(tokenizer)
        tokenizer("", verbose=False)  # switches off what padding and truncation its file may hold
        self._is_spelled = self._spelling.is_known and self._states_what_is_spelled()

    def _states_what_is_spelled(self) -> bool:
        """A tokenizer may put a space before a text, or leave white space out of its places."""
        stated = self._stated(PROBE)
        spelled = self._spelling.places(stated.ids_T, PROBE)
        return spelled is not None and np.array_equal(spelled, stated[1:])

    def ids(self, text: str) -> list[int]:
        """Straight from the backend, which can leave out to count places: half as much again."""
        (encoded,) = self._tokenizer.backend_tokenizer.encode_batch_fast(
            [text], add_special_tokens=False
        )
        ids_T: list[int] = encoded.ids
        return ids_T

    def of(self, text: str) -> Tokens:
        if self._is_spelled:
            ids_T = self.ids(text)
            places = self._spelling.places(ids_T, text)
            if places is not None:
                return Tokens(ids_T, *places)
        return self._stated(text)

    def _stated(self, text: str) -> Tokens:
        encoded = self._tokenizer(
            text, add_special_tokens=False, return_offsets_mapping=True, verbose=False
        )
        starts_T, ends_T = np.array(encoded["offset_mapping"]).reshape(-1, 2).T
        return Tokens(encoded["input_ids"], starts_T, ends_T)
