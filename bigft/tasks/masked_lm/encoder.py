"""Texts as rows of tokens: each a row, or joined and cut into full ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from bigft.config.errors import BadInput, Problem
from bigft.config.tasks import MaskedLM as Options
from bigft.data.records import Note, Record, Row
from bigft.tasks.masked_lm.blocks import Piece, blocks
from bigft.tasks.masked_lm.words import continues
from bigft.tasks.round_trip import RoundTrip
from bigft.tasks.unlearnable import NO_INPUT, UNKNOWN_INPUT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from bigft.models.limits import Limit

TEXTS_TOGETHER = 64  # that the tokenizer gets at a time


class Frame(NamedTuple):
    """What the tokenizer puts around a text, and between two texts of a row."""

    before: tuple[int, ...]
    behind: tuple[int, ...]
    separator: int | None

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase) -> Frame:
        (bare,) = tokenizer(["a"], add_special_tokens=False)["input_ids"]
        (whole,) = tokenizer(["a"])["input_ids"]
        start = next(at for at in range(len(whole)) if whole[at : at + len(bare)] == bare)
        behind = tuple(whole[start + len(bare) :])
        known = (tokenizer.sep_token_id, *behind, tokenizer.eos_token_id)
        separator = next((token for token in known if token is not None), None)
        return cls(tuple(whole[:start]), behind, separator)


class _Text(NamedTuple):
    """ids_T: without special tokens.  continues_T: see `words.continues`; [] where each token is
    masked for itself."""

    ids_T: list[int]
    continues_T: list[int]


class Encoder:
    """Makes rows of records {"text"}. Columns: `input_ids`, and where whole words are masked
    `continues`. A row's targets are at most its tokens that are not special."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, options: Options, limit: Limit | None
    ) -> None:
        """limit: of a row; None: no bound.

        Raises BadInput where texts cannot be joined, a row would hold nothing but special tokens,
        or words cannot be told.
        """
        self._tokenizer, self._options, self._limit = tokenizer, options, limit
        self._of_words = options.masking == "whole_word"
        self._round_trip = RoundTrip(tokenizer)
        self._special = frozenset(tokenizer.all_special_ids)
        self._frame = Frame.of(tokenizer)
        taken = len(self._frame.before) + len(self._frame.behind)
        self._room = None if limit is None else limit.tokens - taken
        if self._of_words and not tokenizer.is_fast:
            what = "whole_word, but the tokenizer is a slow one, which cannot tell words"
            fix = "set it to token, or model.tokenizer_name to one with a tokenizer.json"
            raise BadInput(Problem("task.masking", what, fix))
        if self._room is not None and self._room < 1:
            what = f"{self._limit.tokens if self._limit else 0} tokens, of which {taken} are special"
            raise BadInput(Problem("data.max_seq_length", what, "give more"))
        if options.line_by_line:
            return
        if self._room is None:
            what = "not given, but neither model nor tokenizer says how long a row may be"
            fix = "give it (512, for example), or set task.line_by_line to true"
            raise BadInput(Problem("data.max_seq_length", what, fix))
        if self._frame.separator is None:
            what = "false, but the tokenizer has no token to put between two texts (sep or eos)"
            raise BadInput(Problem("task.line_by_line", what, "set it to true"))

    def encode(self, records: Iterable[Record]) -> Iterator[Sequence[Row | Note]]:
        return self._lines(records) if self._options.line_by_line else self._joined(records)

    def _lines(self, records: Iterable[Record]) -> Iterator[Sequence[Row | Note]]:
        for record, text in self._tokens(records):
            notes = list(self._notes(record, text))
            if self._room is not None and len(text.ids_T) > self._room:
                assert self._limit is not None
                where = f"{self._limit.tokens} tokens: {self._limit.source}"
                rest = "task.line_by_line: false would put the rest into further rows"
                notes.append(Note(record.index, f"are cut at {where}; {rest}"))
            cut = _Text(text.ids_T[: self._room], text.continues_T[: self._room])
            yield [self._row(record.index, 0, 1, cut), *notes]

    def _joined(self, records: Iterable[Record]) -> Iterator[Sequence[Row | Note]]:
        """A row belongs to the record that begins it; one that begins none has none."""
        assert self._room is not None
        pairs = list(self._tokens(records))
        texts = [text for _, text in pairs]
        found: list[list[list[Piece]]] = [[] for _ in pairs]
        for block in blocks((len(text.ids_T) for text in texts), self._room):
            found[block[0].text].append(block)
        for (record, text), own in zip(pairs, found, strict=True):
            rows = [
                self._row(record.index, window, len(own), self._block(texts, block))
                for window, block in enumerate(own)
            ]
            yield [*rows, *self._notes(record, text)]

    def _block(self, texts: Sequence[_Text], block: Sequence[Piece]) -> _Text:
        ids_T: list[int] = []
        continues_T: list[int] = []
        for piece in block:
            if ids_T:
                assert self._frame.separator is not None
                ids_T.append(self._frame.separator)
                continues_T += [0] * self._of_words
            ids_T += texts[piece.text].ids_T[piece.start : piece.end]
            continues_T += texts[piece.text].continues_T[piece.start : piece.end]
        return _Text(ids_T, continues_T)

    def _row(self, record: int, window: int, num_windows: int, text: _Text) -> Row:
        before, behind, _ = self._frame
        ids_T = [*before, *text.ids_T, *behind]
        columns = {"input_ids": ids_T}
        if self._of_words:
            columns["continues"] = [0] * len(before) + text.continues_T + [0] * len(behind)
        num_targets = sum(token not in self._special for token in ids_T)
        return Row(record, window, num_windows, len(ids_T), num_targets, columns)

    def _notes(self, record: Record, text: _Text) -> Iterator[Note]:
        if self._round_trip.is_unknown(record.fields["text"], text.ids_T):
            yield Note(record.index, NO_INPUT)
        elif self._round_trip.has_unknown(text.ids_T):
            yield Note(record.index, UNKNOWN_INPUT)

    def _tokens(self, records: Iterable[Record]) -> Iterator[tuple[Record, _Text]]:
        source = iter(records)
        while group := list(islice(source, TEXTS_TOGETHER)):
            lines = [record.fields["text"] for record in group]
            encoded = self._tokenizer(
                lines,
                add_special_tokens=False,
                return_attention_mask=False,
                return_token_type_ids=False,
                return_offsets_mapping=self._of_words,
                verbose=False,
            )
            for number, record in enumerate(group):
                ids_T, continues_T = encoded["input_ids"][number], []
                if self._of_words:
                    offsets = encoded["offset_mapping"][number]
                    words = encoded.word_ids(number)
                    continues_T = continues(lines[number], words, offsets)
                yield record, _Text(ids_T, continues_T)
