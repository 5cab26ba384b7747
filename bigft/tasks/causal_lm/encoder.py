"""Conversations and texts as rows of tokens, and which of them are targets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bigft.config.errors import BadInput, Problem
from bigft.config.tasks import CausalLM as Options
from bigft.data.records import IGNORE_INDEX, Record, Row
from bigft.tasks.causal_lm.chat_template import Rendered, Renderer
from bigft.tasks.causal_lm.tokens import Tokenization, Tokens
from bigft.tasks.causal_lm.turns import is_learnt
from bigft.tasks.round_trip import RoundTrip
from bigft.tasks.text_rows import labels, text_row
from bigft.tasks.unlearnable import NO_TEXT, NO_TOKEN

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from bigft.models.limits import Limit

RECORDS_TOGETHER = 128
CHARACTERS_TOGETHER = 1 << 18


@dataclass(frozen=True, slots=True)
class Encoder:
    """limit: of a row; None: no bound.

    A row's column `prompt` holds one number: how many of its tokens stand before the record's last
    answer; 0 where none is generated from this row.
    """

    _tokenizer: PreTrainedTokenizerBase
    _tokenization: Tokenization
    _renderer: Renderer
    _round_trip: RoundTrip
    _options: Options
    _limit: Limit | None

    def encode(self, records: Iterable[Record]) -> Iterator[list[Row] | BadInput]:
        """Of a conversation one row, cut at the right; several where the template rewrites its
        history. Of plain text windows that do not overlap."""
        for group in _groups(records):
            texts = [self._texts(record) for record in group]
            plain = [text for text in texts if isinstance(text, str)]
            rendered = [each for text in texts if isinstance(text, list) for each in text]
            ids = iter(self._tokenization.ids(plain))
            tokens = iter(self._tokenization.of([each.text for each in rendered]))
            for record, text in zip(group, texts, strict=True):
                try:
                    if isinstance(text, str):
                        yield self._whole(record, self._windows(record, text, next(ids)), [])
                    elif isinstance(text, list):
                        parts = [(each, next(tokens)) for each in text]
                        rows = [self._row(record, *part) for part in parts]
                        yield self._whole(record, rows, _notes(text))
                    else:
                        yield text
                except BadInput as refused:
                    yield refused

    def _texts(self, record: Record) -> str | list[Rendered] | BadInput:
        """What is to be learnt, as the tokenizer gets it."""
        try:
            return self._plain(record) if "text" in record.fields else self._rendered(record)
        except BadInput as refused:
            return refused

    def _whole(self, record: Record, rows: list[Row], notes: list[str]) -> list[Row]:
        """The record's rows, those without a target left out, as they know of each other."""
        lost = sum(row.lost_targets for row in rows)
        rows = [row for row in rows if row.num_targets]
        if not rows:
            raise BadInput(_no_target(record, lost, self._limit))
        if lost and self._limit is not None:
            notes.append(f"are cut at {self._limit.tokens} tokens: {self._limit.source}")
        if all(self._is_unknown(record, row) for row in rows):
            notes.append(NO_TOKEN)
        told = {"lost_targets": lost, "notes": (*rows[-1].notes, *notes)}  # of the record, once
        rest: list[dict[str, Any]] = [{"lost_targets": 0}] * (len(rows) - 1)
        return [
            replace(row, window=window, num_windows=len(rows), **numbers)
            for window, (row, numbers) in enumerate(zip(rows, [*rest, told], strict=True))
        ]

    def _is_unknown(self, record: Record, row: Row) -> bool:
        """Whether the row's targets know nothing of what they are made of."""
        if not self._round_trip.has_unknown(labels(row)):
            return False
        learnt = [token for token in labels(row) if token != IGNORE_INDEX]
        return self._round_trip.is_unknown(_said(record.fields), learnt)

    def _rendered(self, record: Record) -> list[Rendered]:
        if self._options.assistant_only_loss:
            last_only = self._options.mask_history
            return self._renderer.answers(record.fields, record.where, last_only)
        with_prompt = self._options.predict_with_generate
        return [self._renderer.whole(record.fields, record.where, with_prompt)]

    def _row(self, record: Record, rendered: Rendered, tokens: Tokens) -> Row:
        """A token that holds a character of an answer is a target, at a border too."""
        ids_T, length = tokens.ids_T, 0
        targets_T = [IGNORE_INDEX] * len(ids_T)
        notes: list[str] = []
        for start, end in rendered.answers:
            answer = tokens.holding(start, end)
            learnt_T = targets_T[answer] = ids_T[answer]
            if learnt_T:  # what follows the last target teaches nothing
                length = answer.stop
            if not tokens.spell(answer) or not self._round_trip.keeps_spelled(learnt_T):
                learnt = rendered.text[tokens.extent(start, end)]
                notes += self._round_trip.notes(learnt, learnt_T, rendered=True)
        if self._options.assistant_only_loss and IGNORE_INDEX not in targets_T:
            raise BadInput(
                Problem(
                    record.where,
                    "every token is a target: nothing stands before the answer",
                    "give it a prompt, or set task.assistant_only_loss to false",
                )
            )
        prompt = 0
        if rendered.prompt:
            prompt = tokens.holding(rendered.prompt, len(rendered.text)).start
        return self._cut(record, ids_T[:length], targets_T[:length], tuple(notes), prompt)

    def _cut(
        self,
        record: Record,
        ids_T: list[int],
        targets_T: list[int],
        notes: tuple[str, ...],
        prompt: int = 0,
    ) -> Row:
        """The row up to its bound; position t's label is token t + 1, if that is a target."""
        end = len(ids_T) if self._limit is None else min(self._limit.tokens, len(ids_T))
        labels_T = [*targets_T[1:end], IGNORE_INDEX][:end]
        lost = len(targets_T) - end - targets_T[end:].count(IGNORE_INDEX)
        columns = {"prompt": [prompt if prompt < end else 0]}
        return text_row(record.index, 0, 1, ids_T[:end], labels_T, columns, lost, notes)

    def _plain(self, record: Record) -> str:
        """bos begins the record and eos ends it, unless its text says so itself."""
        if self._options.predict_with_generate:
            raise BadInput(
                Problem(
                    "task.predict_with_generate",
                    "plain text holds no prompt to answer",
                    "set it to false",
                )
            )
        text, bos = str(record.fields["text"]), self._renderer.bos
        return text if text.lstrip().startswith(bos) else bos + text

    def _windows(self, record: Record, text: str, ids: list[int]) -> list[Row]:
        """Every token is a target once, but the first of a window."""
        notes = self._round_trip.notes(text, ids, rendered=True)
        is_ended = text.rstrip().endswith(self._tokenizer.eos_token)
        ids += [] if is_ended else [self._tokenizer.eos_token_id]
        length = len(ids) if self._limit is None else self._limit.tokens
        return [
            self._cut(record, window, window, notes)
            for window in (ids[start : start + length] for start in range(0, len(ids), length))
        ]


def _groups(records: Iterable[Record]) -> Iterator[list[Record]]:
    """Encoded together, records go through each step in a row, which keeps it in the processor's
    caches: a third faster. Of long texts few are held at a time."""
    group: list[Record] = []
    size = 0
    for record in records:
        group.append(record)
        size += len(_said(record.fields))
        if len(group) == RECORDS_TOGETHER or size >= CHARACTERS_TOGETHER:
            yield group
            group, size = [], 0
    if group:
        yield group


def _notes(texts: Sequence[Rendered]) -> list[str]:
    notes = [note for rendered in texts for note in rendered.notes]
    return [*notes, NO_TEXT] if all(rendered.is_empty for rendered in texts) else notes


def _said(fields: Mapping[str, Any]) -> str:
    """The texts that are to be learnt, one behind the other."""
    learnt = [message for message in fields.get("messages", ()) if is_learnt(message)]
    return "".join([fields.get("text", ""), *(each.get("content", "") for each in learnt)])


def _no_target(record: Record, lost: int, limit: Limit | None) -> Problem:
    if not lost or limit is None:
        return Problem(record.where, "no token to learn in it", "write an answer, or delete it")
    what = f"its {lost} targets stand beyond the first {limit.tokens} tokens: "
    what += "nothing is left to learn"
    return Problem(record.where, what, f"raise {limit.source}, or delete the sample")
