"""What `bigft predict` is given, as text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bigft.config.errors import BadInput, Problem


def text_of(given: str | Mapping[str, Any], file: str, line: int) -> str:
    """The text, or that of an object: its `text`, else its `source`. Raises BadInput for others."""
    texts = [given] if isinstance(given, str) else [given.get("text"), given.get("source")]
    text = next((text for text in texts if isinstance(text, str)), None)
    if text is None:
        what = "no string `text` in the object"
        raise BadInput(Problem(f"{file}:{line}", what, 'write {"text": "..."}'))
    return text
