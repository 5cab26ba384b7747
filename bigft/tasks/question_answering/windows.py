"""A question and its context as rows of tokens: windows over a context that is too long.

What stands around question and context, and in which order they come, is what the tokenizer makes
of a pair; a window is that row with a part of the context's tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from bigft.config.errors import BadInput, Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

QUESTION, CONTEXT = 0, 1  # as tokenizers number the two of a pair


class Characters(NamedTuple):
    """Of a token of the context the characters that it stands for, the end exclusive."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Window:
    """input_ids_T: with special tokens.  token_type_ids_T: None where the model takes none.

    first, end: which tokens of the context it holds.  position: of the first of them in the row.
    null: the position that stands for "no answer".
    """

    input_ids_T: list[int]
    token_type_ids_T: list[int] | None
    first: int
    end: int
    position: int
    null: int


@dataclass(frozen=True, slots=True)
class Windows:
    """Of one question, in the order of the context.

    characters: of every token of the context.
    question_cut: tokens that are left of the question; None: it is whole.
    """

    windows: list[Window]
    characters: list[Characters]
    question_cut: int | None = None


class Windower:
    """Cuts contexts for one tokenizer.

    max_length: tokens of a window, all included.  cut_by: what says so.
    stride: tokens of the context that two windows share; at most half of what a window has room
        for.
    Raises BadInput where the tokenizer does not tell where its tokens stand, or a window has no
    room.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        max_length: int | None,
        stride: int,
        cut_by: str = "data.max_seq_length",
    ) -> None:
        if not tokenizer.is_fast:
            raise BadInput(
                Problem(
                    "model.tokenizer_name",
                    "a slow tokenizer, which does not tell where in a text its tokens stand",
                    "name one with a tokenizer.json",
                )
            )
        self._tokenizer, self._max_length, self._stride = tokenizer, max_length, stride
        self._num_special = tokenizer.num_special_tokens_to_add(pair=True)
        if max_length is not None and max_length < self._num_special + 2:
            what = f"{max_length}, but {self._num_special} special tokens go in first"
            fix = f"give at least {self._num_special + 2}"
            raise BadInput(Problem(cut_by, what, fix))

    def windows(self, question: str, context: str) -> Windows:
        """At least one. A question of more than half of a window is cut where the context does not
        fit beside it."""
        encoded = self._tokenizer(
            question, context, return_offsets_mapping=True, truncation=False, verbose=False
        )
        sides_T = encoded.sequence_ids(0)
        of_context = [at for at, side in enumerate(sides_T) if side == CONTEXT]
        around = [at for at, side in enumerate(sides_T) if side != CONTEXT]
        cut, room = None, len(of_context)
        if self._max_length is not None and len(sides_T) > self._max_length:
            half = (self._max_length - self._num_special) // 2
            of_question = [at for at in around if sides_T[at] == QUESTION]
            if len(of_question) > half:
                lost, cut = {*of_question[half:]}, half
                around = [at for at in around if at not in lost]
            room = self._max_length - len(around)
        first = of_context[0] if of_context else len(sides_T)
        before = [at for at in around if at < first]
        behind = [at for at in around if at > first]
        ids_T, types_T = encoded["input_ids"], encoded.get("token_type_ids")
        windows = []
        for start, end in spans(len(of_context), room, self._stride):
            row = [*before, *of_context[start:end], *behind]
            windows.append(
                Window(
                    [ids_T[at] for at in row],
                    None if types_T is None else [types_T[at] for at in row],
                    start,
                    end,
                    position=len(before),
                    null=self._null([ids_T[at] if sides_T[at] is None else None for at in row]),
                )
            )
        offsets_T = encoded["offset_mapping"]
        return Windows(windows, [Characters(*offsets_T[at]) for at in of_context], cut)

    def _null(self, special_T: Sequence[int | None]) -> int:
        """The position of the [CLS] token, else the first. special_T: None where a token is of the
        texts, which may spell such tokens."""
        cls = self._tokenizer.cls_token_id
        return special_T.index(cls) if cls is not None and cls in special_T else 0


def spans(length: int, room: int, stride: int) -> Iterator[tuple[int, int]]:
    """(start, end) of windows of at most `room` that cover the length, each sharing `stride` with
    the one before; at most half of the room is shared."""
    start, step = 0, room - min(stride, room // 2)
    while start + room < length:
        yield start, start + room
        start += step
    yield start, length
