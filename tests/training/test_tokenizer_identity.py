"""Prepared rows are taken from the cache only where the tokenizer would make the same ones."""

from __future__ import annotations

from typing import Any

import pytest
from tiny import letter_tokenizer

from bigft.models.processors import identity


@pytest.mark.parametrize(
    "setting",
    [
        {"truncation_side": "left"},
        {"split_special_tokens": True},
        {"clean_up_tokenization_spaces": True},
        {"chat_template": "{{ messages }}"},
    ],
)
def test_what_changes_rows_or_notes_is_part_of_it(setting: dict[str, Any], tmp_path: Any) -> None:
    letter_tokenizer(**setting).save_pretrained(tmp_path)
    changed = type(letter_tokenizer()).from_pretrained(tmp_path)
    assert identity(changed) != identity(letter_tokenizer())
    assert identity(changed) == identity(type(changed).from_pretrained(tmp_path))


def test_where_it_lies_is_not(tmp_path: Any) -> None:
    for name in ("a", "b"):
        letter_tokenizer().save_pretrained(tmp_path / name)
    one, other = (type(letter_tokenizer()).from_pretrained(tmp_path / name) for name in ("a", "b"))
    assert identity(one) == identity(other)
