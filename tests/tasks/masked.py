"""A masked-lm task on tiny tokenizers, and records for it."""

from __future__ import annotations

from typing import Any

from tiny import letter_tokenizer

from bigft.config.sections import RunConfig
from bigft.data.records import Record
from bigft.models.limits import Limit
from bigft.tasks.masked_lm import MaskedLM
from bigft.tasks.protocol import Setting

CLS, SEP = 2, 3


def masked_task(tokenizer: Any = None, max_length: int | None = 16, **options: Any) -> MaskedLM:
    """A word of n letters is n tokens."""
    config = RunConfig.model_validate(
        {
            "task": {"name": "masked-lm", **options},
            "model": {"model_name_or_path": "unused"},
            "train": {"output_dir": "unused"},
        }
    )
    limit = Limit(max_length, "data.max_seq_length") if max_length else None
    tokenizer = tokenizer or letter_tokenizer(mask_token="[MASK]")
    return MaskedLM(Setting(config, tokenizer, limit=limit))


def texts(*lines: str) -> list[Record]:
    return [Record(n, {"text": line}, "a.txt", n + 1) for n, line in enumerate(lines)]
