"""Sentences as rows of tokens: sub-words, windows over long sentences, and who owns a word.

A sentence that does not fit is cut into overlapping windows between words. Every word is *owned*
by one window, the one that shows most context on its nearer side; only there does it carry a
label and give a prediction. So each word is trained on once and predicted once, and stitching
the windows of a sentence is laying their owned words side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from bigft.config.errors import BadInput, Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

NO_WORD = -1  # in Window.words_T: a special token, a later sub-token, or a word of another window


@dataclass(frozen=True, slots=True)
class Window:
    """input_ids_T: with special tokens.

    words_T: at the first sub-token of an owned word its number in the sentence, else NO_WORD.
    continues_T: at a later sub-token of an owned word its number, else NO_WORD.
    """

    input_ids_T: list[int]
    words_T: list[int]
    continues_T: list[int]


class Windower:
    """Cuts sentences for one tokenizer.

    max_length: tokens of a window, special tokens included.  cut_by: what says so.
    stride: tokens that two windows share at least, as far as word borders allow; at most half
        of a window is shared.
    Raises BadInput, naming what says so, where no room is left for words.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int | None,
        stride: int,
        cut_by: str = "data.max_seq_length",
    ) -> None:
        self._tokenizer = tokenizer
        sample = tokenizer("a", return_special_tokens_mask=True)
        special = sample["special_tokens_mask"]
        body = special.index(0) if 0 in special else len(special)
        end = len(special) - special[::-1].index(0) if 0 in special else body
        self._prefix, self._suffix = sample["input_ids"][:body], sample["input_ids"][end:]
        self._room = None
        self._stride = 0
        if max_length is not None:
            self._room = max_length - len(self._prefix) - len(self._suffix)
            if self._room < 1:
                raise BadInput(
                    Problem(
                        cut_by,
                        f"{max_length}, but {max_length - self._room} special tokens go in first",
                        f"give at least {max_length - self._room + 1}",
                    )
                )
            self._stride = min(stride, self._room // 2)

    def windows(self, words: Sequence[str]) -> list[Window]:
        """The sentence's windows in order; at least one."""
        ids_by_word = self._sub_tokens(words)
        spans = self._cut([len(ids) for ids in ids_by_word])
        borders = [0]  # windows own the words between two borders
        for (_, end), (next_start, _) in pairwise(spans):
            borders.append((next_start + end + 1) // 2)
        borders.append(len(words))
        return [
            self._window(ids_by_word, span, owned)
            for span, owned in zip(spans, pairwise(borders), strict=True)
        ]

    def _sub_tokens(self, words: Sequence[str]) -> list[list[int]]:
        encoded = self._tokenizer(
            list(words),
            is_split_into_words=True,
            add_special_tokens=False,
            truncation=False,
            verbose=False,
        )
        ids_by_word: list[list[int]] = [[] for _ in words]
        for token_id, word in zip(encoded["input_ids"], encoded.word_ids(0), strict=True):
            ids_by_word[word].append(token_id)
        for ids in ids_by_word:
            if not ids:  # a word the tokenizer drops (a lone zero-width space) is still a word
                ids.append(self._tokenizer.unk_token_id)
            if self._room is not None:
                del ids[self._room :]  # one word longer than a window: its head stands for it
        return ids_by_word

    def _cut(self, sizes: Sequence[int]) -> list[tuple[int, int]]:
        """Word ranges, each within the room; the next begins `stride` tokens before its end."""
        room = self._room
        if room is None or sum(sizes) <= room:
            return [(0, len(sizes))]
        spans = []
        start = 0
        while True:
            end, tokens = start, 0
            while end < len(sizes) and tokens + sizes[end] <= room:
                tokens += sizes[end]
                end += 1
            spans.append((start, end))
            if end == len(sizes):
                return spans
            overlap, back = 0, end
            while back > start + 1 and overlap < self._stride:
                if overlap + sizes[back - 1] + sizes[end] > room:
                    break  # the next window must reach further than this one
                back -= 1
                overlap += sizes[back]
            start = back

    def _window(
        self, ids_by_word: list[list[int]], span: tuple[int, int], owned: tuple[int, int]
    ) -> Window:
        ids, words, continues = list(self._prefix), [], []
        words += [NO_WORD] * len(ids)
        continues += [NO_WORD] * len(ids)
        for word in range(*span):
            mine = word if owned[0] <= word < owned[1] else NO_WORD
            rest = len(ids_by_word[word]) - 1
            ids += ids_by_word[word]
            words += [mine] + [NO_WORD] * rest
            continues += [NO_WORD] + [mine] * rest
        ids += self._suffix
        words += [NO_WORD] * len(self._suffix)
        continues += [NO_WORD] * len(self._suffix)
        return Window(ids, words, continues)
