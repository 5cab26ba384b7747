"""pydantic's errors in the words of bigft: the key, the value found, what it should be."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from bigft.config.draft import Draft
from bigft.config.errors import Problem
from bigft.config.keys import fix_of_unknown
from bigft.config.sections import RunConfig
from bigft.config.tasks import AVAILABLE_TASKS
from bigft.config.yaml_text import KeyPath

_SHOULD_BE = {
    "bool_type": "true or false",
    "dict_type": "a mapping",
    "float_type": "a number",
    "int_type": "a whole number",
    "model_attributes_type": "a mapping",
    "model_type": "a mapping",
    "string_pattern_mismatch": "text of the form {pattern}",
    "string_too_short": "text that is not empty",
    "string_type": "text (numbers in quotes)",
    "tuple_type": "a list",
}


def explain(error: ValidationError, draft: Draft) -> Iterator[tuple[KeyPath, Problem]]:
    """One problem per key that is wrong or missing, with the key's path."""
    by_path: dict[KeyPath, list[ErrorDetails]] = {}
    for detail in error.errors(include_url=False):
        by_path.setdefault(_path(detail, draft.values), []).append(detail)
    for path, details in by_path.items():
        kind, context = details[0]["type"], details[0].get("ctx", {})
        if kind == "extra_forbidden":
            yield path, Problem(draft.where(path), "unknown key", fix_of_unknown(path))
        elif kind == "missing":
            yield path, Problem(draft.where(path), "missing", f"give {_description(path)}")
        elif kind == "union_tag_not_found":
            where = draft.where((*path, "name"))
            yield path, Problem(where, "missing", f"choose one of {', '.join(AVAILABLE_TASKS)}")
        elif kind == "union_tag_invalid":
            tag = context["discriminator"].strip("'")
            found, expected = _value(draft.values, (*path, tag)), context["expected_tags"]
            yield path, _mismatch(draft.where((*path, tag)), found, [expected])
        else:
            expected = [_should_be(detail) for detail in details]
            yield path, _mismatch(draft.where(path), _value(draft.values, path), expected)


def _path(detail: ErrorDetails, values: dict[str, Any]) -> KeyPath:
    """The error's place in the user's data, without the names of union members in between."""
    path: KeyPath = ()
    for part in detail["loc"]:
        inside = _value(values, path)
        if part in inside if isinstance(inside, dict) else isinstance(inside, list):
            path = (*path, part)
    return (*path, detail["loc"][-1]) if detail["type"] == "missing" else path


def _value(values: Any, path: KeyPath) -> Any:
    for part in path:
        values = values[part]
    return values


def _description(path: KeyPath) -> str:
    section = RunConfig.model_fields[str(path[0])].annotation
    field: FieldInfo = section.model_fields[str(path[1])]  # type: ignore[union-attr]
    text = field.description or "a value"
    return text[0].lower() + text[1:].rstrip(".")


def _should_be(detail: ErrorDetails) -> str:
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "literal_error":
        return str(context["expected"])
    if kind in _SHOULD_BE:
        return _SHOULD_BE[kind].format(**context)
    return re.sub("^(Input should be|Value error,) ", "", detail["msg"])


def _mismatch(where: str, found: Any, expected: Sequence[str]) -> Problem:
    wanted = " or ".join(dict.fromkeys(expected))
    choices = re.findall("'([^']*)'", wanted)
    begun = [choice for choice in choices if found and choice.startswith(str(found))]
    nearest = begun or get_close_matches(str(found), choices, n=1)
    hint = f" (did you mean {nearest[0]}?)" if nearest else ""
    shown = json.dumps(found, ensure_ascii=False)
    if len(shown) > 60:
        shown = f"{shown[:60]}..."
    return Problem(where, f"found {shown}", f"it should be {wanted}{hint}")
