"""Text to tokens and back: what a tokenizer leaves of the texts that a model learns to write."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby
from typing import TYPE_CHECKING

from bigft.tasks.spelling import Spelling
from bigft.tasks.unlearnable import NO_INPUT, UNKNOWN_INPUT

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

UNKNOWN = (
    "have characters among their targets that the tokenizer has no token for: {token} is learnt in "
    "their place, and left out where answers are written and compared"
)
CHANGED = (
    "have targets that the tokenizer does not give back as they are (line breaks, spaces, case, "
    "forms of characters): what it gives back is learnt, written and compared"
)
CLEANED = (
    "have targets that clean_up_tokenization_spaces changes where other tools decode them: set it "
    "to false in tokenizer_config.json (bigft decodes without it)"
)


class RoundTrip:
    """Decodes the way every answer of a task is decoded, and compares with the text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._spelling = Spelling(tokenizer)
        unknown = tokenizer.unk_token_id
        # A byte-level vocabulary knows all, and may call its end of text unknown.
        is_end = unknown in (tokenizer.eos_token_id, tokenizer.bos_token_id)
        self._unknown: int | None = None if is_end else unknown
        marks = {*tokenizer.all_special_tokens, *map(str, tokenizer.added_tokens_decoder.values())}
        longest_first = sorted(marks, key=len, reverse=True)
        self._marks = re.compile(rf"\s*({'|'.join(map(re.escape, longest_first))})\s*")
        # Without a decoder tokens are not text but a list of pieces: there is nothing to compare.
        self._has_decoder = not tokenizer.is_fast or tokenizer.backend_tokenizer.decoder is not None
        is_bpe = tokenizer.is_fast and type(tokenizer.backend_tokenizer.model).__name__ == "BPE"
        self._is_cleaned = tokenizer.clean_up_tokenization_spaces and not is_bpe

    def text(self, ids_T: Sequence[int], plain: bool = True) -> str:
        """The text of the tokens. plain: without special tokens."""
        # Cleaned up, punctuation would not stand where it was learnt.
        text = self._tokenizer.decode(
            list(ids_T), skip_special_tokens=plain, clean_up_tokenization_spaces=False
        )
        return str(text)

    def has_unknown(self, ids_T: Sequence[int]) -> bool:
        """Whether a token stands for what the tokenizer has none for."""
        return self._unknown is not None and self._unknown in ids_T

    def is_unknown(self, text: str, ids_T: Sequence[int]) -> bool:
        """Whether the tokens know nothing of the text; of one with letters or digits, none of them:
        a full stop that is known tells nothing."""
        if not self.has_unknown(ids_T):
            return False
        known = self.text([token for token in ids_T if token != self._unknown])
        known = self._marks.sub("", known)
        letters = any(map(str.isalnum, text))
        return not any(map(str.isalnum, known)) if letters else not known.strip()

    def input_notes(self, text: str, ids_T: Sequence[int]) -> tuple[str, ...]:
        """What of a text the model does not see: notes as those of a Row."""
        if not self.has_unknown(ids_T):
            return ()
        return (NO_INPUT,) if self.is_unknown(text, ids_T) else (UNKNOWN_INPUT,)

    def keeps_spelled(self, ids_T: Sequence[int]) -> bool:
        """Whether the tokens are decoded to what they spell."""
        return not self._is_cleaned and not self.has_unknown(ids_T)

    def notes(self, text: str, ids_T: Sequence[int], rendered: bool = False) -> tuple[str, ...]:
        """What of the text is not learnt as it is: notes as those of a Row.

        White space around the text does not count.
        ids_T: what it is learnt as.  rendered: the text holds special tokens, written out, and what
            of white space stands beside them does not count either.
        """

        if rendered and self.keeps_spelled(ids_T) and self._spelling.is_of(ids_T, text):
            return ()

        def bare(text: str) -> str:
            return self._marks.sub(r"\1", text).strip() if rendered else text.strip()

        known = [
            bare(self.text(list(run), plain=not rendered))
            for is_unknown, run in groupby(ids_T, key=lambda token: token == self._unknown)
            if not is_unknown
        ]
        found = []
        if self.has_unknown(ids_T):
            found.append(UNKNOWN.format(token=self._tokenizer.unk_token))
        is_kept = _in_order(known, bare(text)) if found else known == [bare(text)]
        if self._has_decoder and not is_kept:
            found.append(CHANGED)
        if self._is_cleaned and any(self._tokenizer.clean_up_tokenization(t) != t for t in known):
            found.append(CLEANED)
        return tuple(found)


def _in_order(pieces: Sequence[str], text: str) -> bool:
    """Whether all of them stand in the text, one after the other."""
    end = 0
    for piece in pieces:
        start = text.find(piece, end)
        if start < 0:
            return False
        end = start + len(piece)
    return True
