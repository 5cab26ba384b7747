"""What tokens spell, to the byte: of the tokenizers whose vocabulary is made of bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Places = tuple[NDArray[np.int64], NDArray[np.int64]]

# The alphabet of byte-level vocabularies: a byte that Latin-1 shows stands for itself, the others
# are numbered from 256 on.
SHOWN = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
HIDDEN = sorted(set(range(256)) - set(SHOWN))
BYTE_OF = {chr(byte): byte for byte in SHOWN} | {chr(256 + n): b for n, b in enumerate(HIDDEN)}


class Spelling:
    """Tokens that spell a text stand in it one behind the other, and decoding them gives it back:
    to join their bytes is far less work than either."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        backend = tokenizer.backend_tokenizer if tokenizer.is_fast else None
        is_of_bytes = backend is not None and type(backend.decoder).__name__ == "ByteLevel"
        self._bytes = _Bytes(backend) if is_of_bytes else None

    @property
    def is_known(self) -> bool:
        """Whether the tokens are bytes at all."""
        return self._bytes is not None

    def is_of(self, ids_T: Sequence[int], text: str) -> bool:
        """Whether the tokens spell the text. False: they do not, or nothing is known of them."""
        if self._bytes is None:
            return False
        return b"".join(map(self._bytes.__getitem__, ids_T)) == text.encode()

    def places(self, ids_T: Sequence[int], text: str) -> Places | None:
        """At which character each token starts and ends; None if they do not spell the text.

        A token that holds a part of a character starts and ends where that one does.
        """
        if self._bytes is None:
            return None
        pieces = list(map(self._bytes.__getitem__, ids_T))
        written = b"".join(pieces)
        if written != text.encode():
            return None
        lengths_T = np.fromiter(map(len, pieces), np.int64, len(pieces))
        ends_T = lengths_T.cumsum()
        starts_T = ends_T - lengths_T
        if len(written) > len(text):  # from bytes to characters: all but the first byte begin none
            begins = (np.frombuffer(written, np.uint8) & 0xC0) != 0x80
            character = np.cumsum(begins)  # that a byte belongs to, counted from 1
            starts_T, ends_T = character[starts_T] - 1, character[ends_T - 1]
        return starts_T, ends_T


class _Bytes(dict[int, bytes]):
    """By token, as the decoder has them: what is not all of the alphabet is meant literally."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def __missing__(self, token: int) -> bytes:
        name = self._backend.id_to_token(token)
        is_shown = all(letter in BYTE_OF for letter in name)
        self[token] = bytes(map(BYTE_OF.__getitem__, name)) if is_shown else name.encode()
        return self[token]
