"""A seq2seq task on a tiny T5, and records for it."""

from __future__ import annotations

from typing import Any

import pytest
from tiny_seq2seq import eos_tokenizer, tiny_seq2seq

from bigft.config.errors import BadInput
from bigft.config.sections import RunConfig
from bigft.data.records import Record
from bigft.models.limits import Limit
from bigft.tasks.protocol import Setting
from bigft.tasks.seq2seq import Seq2Seq


def config(**sections: dict[str, Any]) -> RunConfig:
    given: dict[str, Any] = {
        "task": {"name": "seq2seq"},
        "model": {"model_name_or_path": "unused"},
        "train": {"output_dir": "unused"},
    }
    for name, keys in sections.items():
        given[name] = given.get(name, {}) | keys
    return RunConfig.model_validate(given)


def task(
    tokenizer: Any = None,
    model: Any = None,
    max_length: int | None = None,
    **options: Any,
) -> Seq2Seq:
    """With its head attached to `model`, or to a tiny T5."""
    short = {"max_target_length": 32, "generation": {"max_new_tokens": 8}}
    settings = config(task=short | options)
    limit = Limit(max_length, "data.max_seq_length") if max_length else None
    one = Seq2Seq(Setting(settings, tokenizer or eos_tokenizer(), limit=limit))
    one.attach_head(model or tiny_seq2seq())
    return one


def record(source: str, target: str, index: int = 0) -> Record:
    return Record(index, {"source": source, "target": target}, "train.tsv", index + 1)


def refusal(call: Any, *args: Any, **keys: Any) -> str:
    with pytest.raises(BadInput) as caught:
        call(*args, **keys)
    return str(caught.value)


# -- encode -------------------------------------------------------------------------------------
