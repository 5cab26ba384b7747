"""Conversations and texts as rows of tokens, and which of them are targets."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bigft.config.errors import BadInput, Problem
from bigft.config.tasks import CausalLM as Options
from bigft.data.records import IGNORE_INDEX, Record, Row
from bigft.tasks.causal_lm.chat_template import Rendered, Renderer
from bigft.tasks.causal_lm.tokens import Tokenization
from bigft.tasks.causal_lm.turns import is_learnt
from bigft.tasks.round_trip import RoundTrip
from bigft.tasks.text_rows import labels, text_row
from bigft.tasks.unlearnable import NO_TEXT, NO_TOKEN

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from bigft.models.limits import Limit


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

    def encode(self, record: Record) -> list[Row]:
        """Of a conversation one row, cut at the right; several where the template rewrites its
        history. Of plain text windows that do not overlap."""
        notes: list[str] = []
        if "text" in record.fields:
            rows = self._windows(record)
        else:
            texts = self._rendered(record)
            rows = [self._row(record, rendered) for rendered in texts]
            notes += [note for rendered in texts for note in rendered.notes]
            notes += [NO_TEXT] if all(rendered.is_empty for rendered in texts) else []
        lost = sum(row.lost_targets for row in rows)
        rows = [row for row in rows if row.num_targets]
        if not rows:
            raise BadInput(_no_target(record, lost, self._limit))
        if lost and self._limit is not None:
            notes.append(f"are cut at {self._limit.tokens} tokens: {self._limit.source}")
        if all(self._is_unknown(record, row) for row in rows):
            notes.append(NO_TOKEN)
        *before, last = (
            replace(row, window=window, num_windows=len(rows), lost_targets=0)
            for window, row in enumerate(rows)
        )
        return [*before, replace(last, lost_targets=lost, notes=(*last.notes, *notes))]

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

    def _row(self, record: Record, rendered: Rendered) -> Row:
        """A token that holds a character of an answer is a target, at a border too."""
        tokens = self._tokenization.of(rendered.text)
        is_target_T = np.zeros(len(tokens.ids_T), dtype=bool)
        notes: list[str] = []
        for start, end in rendered.answers:
            answer = tokens.holding(start, end)
            is_target_T[answer] = True
            learnt = rendered.text[tokens.extent(start, end)]
            notes += self._round_trip.notes(learnt, tokens.ids_T[answer], rendered=True)
        if self._options.assistant_only_loss and is_target_T.all():
            raise BadInput(
                Problem(
                    record.where,
                    "every token is a target: nothing stands before the answer",
                    "give it a prompt, or set task.assistant_only_loss to false",
                )
            )
        # What follows the last target teaches nothing.
        length = int(is_target_T.nonzero()[0][-1]) + 1 if is_target_T.any() else 0
        prompt = 0
        if rendered.prompt:
            prompt = tokens.holding(rendered.prompt, len(rendered.text)).start
        ids_T, is_target_T = tokens.ids_T[:length], is_target_T[:length]
        return self._cut(record, ids_T, is_target_T, tuple(notes), prompt)

    def _cut(
        self,
        record: Record,
        ids_T: list[int],
        is_target_T: NDArray[np.bool_],
        notes: tuple[str, ...],
        prompt: int = 0,
    ) -> Row:
        """The row up to its bound; position t's label is token t + 1, if that is a target."""
        following_T = np.array(ids_T[1:], np.int64)
        labels_T = np.where(is_target_T[1:], following_T, IGNORE_INDEX).tolist()
        end = len(ids_T) if self._limit is None else min(self._limit.tokens, len(ids_T))
        kept_T = [*labels_T[: end - 1], IGNORE_INDEX][:end]
        lost = sum(label != IGNORE_INDEX for label in labels_T[end - 1 :]) if end else 0
        columns = {"prompt": [prompt if prompt < end else 0]}
        return text_row(record.index, 0, 1, ids_T[:end], kept_T, columns, lost, notes)

    def _windows(self, record: Record) -> list[Row]:
        """Every token is a target once, but the first of a window; bos begins the record and eos
        ends it, unless its text says so itself."""
        if self._options.predict_with_generate:
            raise BadInput(
                Problem(
                    "task.predict_with_generate",
                    "plain text holds no prompt to answer",
                    "set it to false",
                )
            )
        text, bos, eos = record.fields["text"], self._renderer.bos, self._tokenizer.eos_token
        text = text if text.lstrip().startswith(bos) else bos + text
        ids = self._tokenization.ids(text)
        notes = self._round_trip.notes(text, ids, rendered=True)
        ids += [] if text.rstrip().endswith(eos) else [self._tokenizer.eos_token_id]
        length = len(ids) if self._limit is None else self._limit.tokens
        return [
            self._cut(record, window, np.ones(len(window), bool), notes)
            for window in (ids[start : start + length] for start in range(0, len(ids), length))
        ]


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
