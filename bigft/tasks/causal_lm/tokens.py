"""A text as tokens that know where they stand in it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from bigft.tasks.spelling import Spelling

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# White space, characters of several bytes, and more of both than a token holds.
PROBE = "a\n\n  b.\t\u00e9\u4f60\u597d \U0001f600\u00a0 c\r\n "


class Tokens(NamedTuple):
    """Of a text: ids, and at which character each token starts and ends.

    are_spelled: whether they spell the text, to the byte.
    """

    ids_T: list[int]
    starts_T: NDArray[np.int64]
    ends_T: NDArray[np.int64]
    are_spelled: bool = False

    def holding(self, start: int, end: int) -> slice:
        """The tokens that hold any of these characters."""
        return slice(
            int(self.ends_T.searchsorted(start, "right")),
            int(self.starts_T.searchsorted(end, "left")),
        )

    def spell(self, run: slice) -> bool:
        """Whether they are known to spell the characters that the run stands in: it does not begin
        or end within one."""
        borders = [at for at in (run.start, run.stop) if 0 < at < len(self.ids_T)]
        return self.are_spelled and all(self.ends_T[at - 1] <= self.starts_T[at] for at in borders)

    def extent(self, start: int, end: int) -> slice:
        """These characters, and what else the tokens hold that hold them."""
        held = self.holding(start, end)
        return slice(
            int(self.starts_T[held].min(initial=start)), int(self.ends_T[held].max(initial=end))
        )


class Tokenization:
    """Texts of one tokenizer as Tokens, without a token around them that they do not write."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._backend = tokenizer.backend_tokenizer
        self._spelling = Spelling(tokenizer)
        tokenizer("", verbose=False)  # switches off what padding and truncation its file may hold
        self._is_spelled = self._spelling.is_known and self._states_what_is_spelled()

    def _states_what_is_spelled(self) -> bool:
        """A tokenizer may put a space before a text, or leave white space out of its places."""
        (stated,) = self._stated([PROBE])
        spelled = self._spelling.places(stated.ids_T, PROBE)
        return spelled is not None and np.array_equal(spelled, stated[1:3])

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Straight from the backend, which can leave out to count places: half as much again."""
        encoded = self._backend.encode_batch_fast(texts, add_special_tokens=False)
        return [each.ids for each in encoded]

    def of(self, texts: Sequence[str]) -> list[Tokens]:
        if not self._is_spelled:
            return self._stated(texts)
        return [
            self._stated([text])[0] if places is None else Tokens(ids_T, *places, are_spelled=True)
            for text, ids_T in zip(texts, self.ids(texts), strict=True)
            for places in [self._spelling.places(ids_T, text)]
        ]

    def _stated(self, texts: Sequence[str]) -> list[Tokens]:
        encoded = self._backend.encode_batch(texts, add_special_tokens=False)
        return [
            Tokens(each.ids, *np.array(each.offsets, np.int64).reshape(-1, 2).T) for each in encoded
        ]
