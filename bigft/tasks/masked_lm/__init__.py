"""Masked tokens: adaptation of an encoder to a domain."""

from __future__ import annotations

from bigft.tasks.masked_lm.task import MaskedLM

__all__ = ["MaskedLM"]
