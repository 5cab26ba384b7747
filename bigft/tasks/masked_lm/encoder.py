"""Texts as rows of tokens: each a row, joined and cut into full ones, or in pairs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from bigft.config.errors import BadInput, Problem
from bigft.config.tasks import MaskedLM as Options
from bigft.data.prepare import Encoded
from bigft.data.records import Note, Record, Row
from bigft.runtime.seeding import address
from bigft.tasks.masked_lm.blocks import Piece, blocks
from bigft.tasks.masked_lm.fields import sentences
from bigft.tasks.masked_lm.pairs import Pair, Run, pairs
from bigft.tasks.masked_lm.words import continues
from bigft.tasks.round_trip import RoundTrip

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from bigft.models.limits import Limit

TEXTS_TOGETHER = 64  # that the tokenizer gets at a time


class Frame(NamedTuple):
    """What the tokenizer puts before a text, between two of one row, and behind the last."""

    before: tuple[int, ...]
    between: tuple[int, ...]
    behind: tuple[int, ...]

    @classmethod
    def of_joined(cls, tokenizer: PreTrainedTokenizerBase) -> Frame:
        """Between two texts stands one token, the one that ends a text; () if there is none."""
        before, behind = _around(tokenizer, tokenizer(["a"])["input_ids"][0])
        known = (tokenizer.sep_token_id, *behind, tokenizer.eos_token_id)
        between = tuple(token for token in known if token is not None)[:1]
        return cls(before, between, behind)

    @classmethod
    def of_pair(cls, tokenizer: PreTrainedTokenizerBase) -> Frame:
        before, rest = _around(tokenizer, tokenizer(["a"], ["a"])["input_ids"][0])
        between, behind = _around(tokenizer, rest)
        return cls(before, between, behind)


def _around(
    tokenizer: PreTrainedTokenizerBase, ids_T: Sequence[int]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """What stands before the text "a" among the tokens, and behind it."""
    (text,) = tokenizer(["a"], add_special_tokens=False)["input_ids"]
    starts = range(len(ids_T) - len(text) + 1)
    start = next(at for at in starts if [*ids_T[at : at + len(text)]] == text)
    return tuple(ids_T[:start]), tuple(ids_T[start + len(text) :])


class Tokens(NamedTuple):
    """ids_T: without special tokens.  continues_T: see `words.continues`; [] where each token is
    masked for itself."""

    ids_T: list[int]
    continues_T: list[int]

    def cut(self, start: int, end: int | None) -> Tokens:
        return Tokens(self.ids_T[start:end], self.continues_T[start:end])


class Encoder:
    """Makes rows of records {"text"}: each text a row.

    Columns: `input_ids`, and where whole words are masked `continues`. A row's targets are at most
    its tokens that are not special.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, options: Options, limit: Limit | None
    ) -> None:
        """limit: of a row; None: no bound.

        Raises BadInput where rows cannot be made as the options want them.
        """
        self._tokenizer, self._limit = tokenizer, limit
        self._of_words = options.masking == "whole_word"
        self._round_trip = RoundTrip(tokenizer)
        self._special = frozenset(tokenizer.all_special_ids)
        self._frame = self._found_frame()
        if self._of_words and not tokenizer.is_fast:
            what = "whole_word, but the tokenizer is a slow one, which cannot tell words"
            fix = "set it to token, or model.tokenizer_name to one with a tokenizer.json"
            raise BadInput(Problem("task.masking", what, fix))
        self._size = self._room(len(self._frame.before) + len(self._frame.behind))

    def _found_frame(self) -> Frame:
        return Frame.of_joined(self._tokenizer)

    def _room(self, taken: int, least: int = 1) -> int | None:
        """Tokens of texts in a row at most, beside so many special ones; None: no bound.

        Raises BadInput where that is less than `least`.
        """
        if self._limit is None:
            return None
        if self._limit.tokens < taken + least:
            what = f"{self._limit.tokens} tokens, of which {taken} are special"
            raise BadInput(Problem("data.max_seq_length", what, f"give {taken + least} or more"))
        return self._limit.tokens - taken

    def _bounded(self, room: int | None, instead: str) -> int:
        """The room where a bound there must be.  instead: what does without one."""
        if room is None:
            what = "not given, but neither model nor tokenizer says how long a row may be"
            fix = f"give it (512, for example), or set {instead}"
            raise BadInput(Problem("data.max_seq_length", what, fix))
        return room

    def encode(self, records: Iterable[Record]) -> Iterator[Encoded]:
        """Of each record, in their order, its rows, and notes on it."""
        for record, text in self._tokenized(records):
            notes = list(self._notes(record, text))
            if self._size is not None and len(text.ids_T) > self._size:
                assert self._limit is not None
                where = f"{self._limit.tokens} tokens: {self._limit.source}"
                rest = "task.line_by_line: false would put the rest into further rows"
                notes.append(Note(record.index, f"are cut at {where}; {rest}"))
            yield [self._row(record.index, 0, 1, [text.cut(0, self._size)]), *notes]

    def prompt(self, record: Record) -> Row:
        """The text as a row of which nothing is masked. Raises BadInput if it is too long."""
        ((_, text),) = self._tokenized([record])
        row = self._row(record.index, 0, 1, [text], self._prompt_columns(text))
        if self._limit is not None and row.length > self._limit.tokens:
            what = f"{row.length} tokens, but {self._limit.source} is {self._limit.tokens}"
            raise BadInput(Problem(record.where, what, "give a shorter text"))
        return replace(row, num_targets=0)

    def _prompt_columns(self, text: Tokens) -> dict[str, list[int]]:
        return {}

    def _row(
        self,
        record: int,
        window: int,
        num_windows: int,
        texts: Sequence[Tokens],
        columns: Mapping[str, list[int]] | None = None,
    ) -> Row:
        """Of texts that the frame's tokens stand around and between."""
        before, between, behind = self._frame
        ids_T, continues_T = [*before], [0] * len(before)
        for number, text in enumerate(texts):
            special = between if number else ()
            ids_T += [*special, *text.ids_T]
            continues_T += [0] * len(special) + text.continues_T
        ids_T += behind
        continues_T += [0] * len(behind)
        own = {"input_ids": ids_T, **({"continues": continues_T} if self._of_words else {})}
        num_targets = sum(token not in self._special for token in ids_T)
        return Row(record, window, num_windows, len(ids_T), num_targets, {**own, **(columns or {})})

    def _notes(self, record: Record, *texts: Tokens) -> Iterator[Note]:
        ids_T = [token for text in texts for token in text.ids_T]
        for note in self._round_trip.input_notes(record.fields["text"], ids_T):
            yield Note(record.index, note)

    def _tokenized(self, records: Iterable[Record]) -> Iterator[tuple[Record, Tokens]]:
        source = iter(records)
        while group := list(islice(source, TEXTS_TOGETHER)):
            texts = self._tokens([record.fields["text"] for record in group])
            yield from zip(group, texts, strict=True)

    def _tokens(self, texts: Sequence[str]) -> list[Tokens]:
        encoded = self._tokenizer(
            list(texts),
            add_special_tokens=False,
            return_attention_mask=False,
            return_token_type_ids=False,
            return_offsets_mapping=self._of_words,
            verbose=False,
        )
        if not self._of_words:
            return [Tokens(ids_T, []) for ids_T in encoded["input_ids"]]
        return [
            Tokens(ids_T, continues(text, encoded.word_ids(number), offsets))
            for number, (text, ids_T, offsets) in enumerate(
                zip(texts, encoded["input_ids"], encoded["offset_mapping"], strict=True)
            )
        ]


class JoinedEncoder(Encoder):
    """Texts one after the other, cut into full rows. A row belongs to the record that begins it;
    one that begins none has none."""

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, options: Options, limit: Limit | None
    ) -> None:
        super().__init__(tokenizer, options, limit)
        self._block = self._bounded(self._size, "task.line_by_line to true")
        if not self._frame.between:
            what = "false, but the tokenizer has no token to put between two texts (sep or eos)"
            raise BadInput(Problem("task.line_by_line", what, "set it to true"))

    def encode(self, records: Iterable[Record]) -> Iterator[Encoded]:
        """Of records that are read together: what they leave of a row at their end is a shorter
        one."""
        pairs = list(self._tokenized(records))
        found: list[list[list[Piece]]] = [[] for _ in pairs]
        for block in blocks((len(text.ids_T) for _, text in pairs), self._block):
            found[block[0].text].append(block)
        for (record, text), own in zip(pairs, found, strict=True):
            rows = [
                self._row(
                    record.index,
                    window,
                    len(own),
                    [pairs[piece.text][1].cut(piece.start, piece.end) for piece in block],
                )
                for window, block in enumerate(own)
            ]
            yield [*rows, *self._notes(record, text)]


class PairEncoder(Encoder):
    """Pairs of runs of sentences, a row each: `pairs`. A document is a record, a sentence a line
    of it.

    Columns besides: `second`, where the second run begins, and `next_sentence_label`: 0 where it
    follows the first, 1 where it is of another document (transformers' labels).
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, options: Options, limit: Limit | None
    ) -> None:
        super().__init__(tokenizer, options, limit)
        room = self._room(sum(map(len, self._frame)), least=2)
        self._both = self._bounded(room, "task.next_sentence_prediction to false")

    def _found_frame(self) -> Frame:
        return Frame.of_pair(self._tokenizer)

    def _prompt_columns(self, text: Tokens) -> dict[str, list[int]]:
        """Of a text alone: all of it is the first run."""
        length = sum(map(len, (self._frame.before, text.ids_T, self._frame.behind)))
        return {"second": [length], "next_sentence_label": [0]}

    def encode(self, records: Iterable[Record]) -> Iterator[Encoded]:
        """Of records that are read together: a foreign run is of another one of them."""
        records = list(records)
        documents = [
            [each for each in self._tokens(sentences(record.fields["text"])) if each.ids_T]
            for record in records
        ]
        known = [document for document in documents if document]
        sizes = [[len(sentence.ids_T) for sentence in document] for document in known]
        places = iter(range(len(known)))
        for record, document in zip(records, documents, strict=True):
            if len(known) == 1:
                what = "no other document is read together with it: what could be foreign to it?"
                fix = "give more documents, or set data.sample_by to paragraph"
                yield BadInput(Problem(record.where, what, fix))
                continue
            own: list[Pair] = []
            if document:
                draw = address("next sentence", record.index)
                own = list(pairs(sizes, next(places), self._both, draw))
            rows = [
                self._pair(record.index, window, len(own), known, pair)
                for window, pair in enumerate(own)
            ]
            yield [*rows, *self._notes(record, *document)]

    def _pair(
        self,
        record: int,
        window: int,
        num_windows: int,
        documents: Sequence[Sequence[Tokens]],
        pair: Pair,
    ) -> Row:
        first, second = _run(documents, pair.first), _run(documents, pair.second)
        first = first.cut(len(first.ids_T) - pair.first_tokens, None)
        begins = sum(map(len, (self._frame.before, first.ids_T, self._frame.between)))
        columns = {"second": [begins], "next_sentence_label": [int(not pair.follows)]}
        texts = [first, second.cut(0, pair.second_tokens)]
        return self._row(record, window, num_windows, texts, columns)


def _run(documents: Sequence[Sequence[Tokens]], run: Run) -> Tokens:
    sentences = documents[run.document][run.start : run.end]
    return Tokens(
        [token for sentence in sentences for token in sentence.ids_T],
        [flag for sentence in sentences for flag in sentence.continues_T],
    )
