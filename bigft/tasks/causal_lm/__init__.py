"""The next token: instruction tuning, chat, plain text."""

from __future__ import annotations

from bigft.tasks.causal_lm.task import CausalLM

__all__ = ["CausalLM"]
