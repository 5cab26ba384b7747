"""Texts and pairs as rows of tokens: cut, or in windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple

from bigft.config.errors import BadInput, Problem
from bigft.data.records import Record
from bigft.tasks.text_classification.fields import given

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from bigft.models.limits import Limit


class Encoded(NamedTuple):
    """ids_T, types_T: of one row, with special tokens; types are those of token_type_ids.

    lost: tokens of the text that stand in no row.
    """

    ids_T: list[int]
    types_T: list[int]
    lost: int = 0


class Encoder:
    """limit: of a row; None: no bound.  stride: tokens that two windows share; None: texts are cut.

    Raises BadInput, naming the key, where windows cannot be had, or a row has no room for a text.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, limit: Limit | None, stride: int | None
    ) -> None:
        self._tokenizer, self._limit = tokenizer, limit
        self._has_types = "token_type_ids" in tokenizer.model_input_names
        if stride is not None and not tokenizer.is_fast:
            what = "windows, but the tokenizer is a slow one, which does not make any"
            fix = "set model.tokenizer_name to one with a tokenizer.json"
            raise BadInput(Problem("task.long_texts", what, fix))
        special = max(tokenizer.num_special_tokens_to_add(pair=pair) for pair in (False, True))
        if limit is not None and limit.tokens <= special + 1:
            what = f"{limit.tokens}, but {special} special tokens go in first"
            raise BadInput(Problem(limit.source, what, f"give at least {special + 2}"))
        self._stride = stride

    def encode(self, records: Sequence[Record]) -> Iterator[list[Encoded] | BadInput]:
        """Of each record, a `text` or with a `pair`, its rows in their order, or why it has none;
        one row where it is not cut into windows.

        Of a pair the second text goes through windows, each behind the whole of the first.
        """
        texts = [list(given(record).values()) for record in records]
        for record, text, ids_T, types_T in zip(records, texts, *self._whole(texts), strict=True):
            if self._limit is None or len(ids_T) <= self._limit.tokens:
                yield [Encoded(ids_T, types_T)]
            elif self._stride is None:
                yield [self._cut(text, len(ids_T))]
            else:
                try:
                    yield self._windows(record.where, text, self._stride)
                except BadInput as refused:
                    yield refused

    def _whole(self, texts: Sequence[Sequence[str]]) -> tuple[list[list[int]], list[list[int]]]:
        """Of all texts in one call, which is faster."""
        pairs = [text[1] for text in texts if len(text) == 2]
        if pairs and len(pairs) < len(texts):  # a data set has one or the other
            found = [self._whole([text]) for text in texts]
            return [ids[0] for ids, _ in found], [types[0] for _, types in found]
        encoded = self._tokenizer(
            [text[0] for text in texts], pairs or None, truncation=False, verbose=False
        )
        ids = encoded["input_ids"]
        return ids, encoded["token_type_ids"] if self._has_types else [[0] * len(i) for i in ids]

    def _cut(self, text: Sequence[str], length: int) -> Encoded:
        """As transformers' pipeline cuts it: of a pair the longer text, at the tokenizer's side."""
        assert self._limit is not None
        cut = self._tokenizer(
            *text, truncation="longest_first", max_length=self._limit.tokens, verbose=False
        )
        self._forget_truncation()
        ids_T = cut["input_ids"]
        types_T = cut["token_type_ids"] if self._has_types else [0] * len(ids_T)
        return Encoded(ids_T, types_T, length - len(ids_T))

    def _windows(self, where: str, text: Sequence[str], stride: int) -> list[Encoded]:
        assert self._limit is not None
        limit, is_pair = self._limit.tokens, len(text) == 2
        room = limit - self._tokenizer.num_special_tokens_to_add(pair=is_pair)
        if is_pair:
            first = self._tokenizer(text[0], add_special_tokens=False, verbose=False)["input_ids"]
            room -= len(first)
            if room < limit // 4:
                what = f"the first text of the pair has {len(first)} of the {limit} tokens of a row"
                fix = f"shorten it, set task.long_texts to cut, or raise {self._limit.source}"
                raise BadInput(Problem(where, what, fix))
        side, self._tokenizer.truncation_side = self._tokenizer.truncation_side, "right"
        try:
            cut = self._tokenizer(
                *text,
                truncation="only_second" if is_pair else True,
                max_length=limit,
                stride=min(stride, room // 2),
                return_overflowing_tokens=True,
                verbose=False,
            )
        finally:
            self._tokenizer.truncation_side = side
            self._forget_truncation()
        ids = cut["input_ids"]
        types = cut["token_type_ids"] if self._has_types else [[0] * len(ids_T) for ids_T in ids]
        return [Encoded(*row) for row in zip(ids, types, strict=True)]

    def _forget_truncation(self) -> None:
        """A fast tokenizer keeps that of its last call, and saves it with the model."""
        self._tokenizer("", truncation=False, verbose=False)
