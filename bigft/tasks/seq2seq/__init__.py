"""A text from a text: translation, summaries."""

from __future__ import annotations

from bigft.tasks.seq2seq.task import Seq2Seq

__all__ = ["Seq2Seq"]
