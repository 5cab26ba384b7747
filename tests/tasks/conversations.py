"""Conversations read as a run reads them."""

from __future__ import annotations

from typing import Any

import pytest

from bigft.config.errors import BadInput
from bigft.data.records import Record
from bigft.tasks.causal_lm.conversations import normalised

USER = {"role": "user", "content": "q"}
ANSWER = {"role": "assistant", "content": "a"}
SYSTEM = {"role": "system", "content": "s"}


def read(
    *rows: dict[str, Any], text: str | int | None = None, label: str | int | None = None
) -> list[dict[str, Any]]:
    records = [Record(number, row, "d.jsonl", number + 1) for number, row in enumerate(rows)]
    found = list(normalised(records, text_column_name=text, label_column_name=label))
    assert [record.index for record in found] == list(range(len(found)))
    return [dict(record.fields) for record in found]


def told(row: dict[str, Any]) -> list[str]:
    """The notes on it."""
    records = [Record(0, row, "d.jsonl", 1)]
    (found,) = normalised(records, text_column_name=None, label_column_name=None)
    return list(found.notes)


def refusal(*rows: dict[str, Any], **columns: Any) -> str:
    with pytest.raises(BadInput) as caught:
        read(*rows, **columns)
    return str(caught.value)
