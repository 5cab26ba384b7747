"""YAML as bigft reads it: YAML 1.2's plain values, each with its line, and nothing that runs."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bigft.config.errors import BadInput, Problem
from bigft.config.yaml_text import dump, parse


def read(text: str) -> Any:
    problems: list[Problem] = []
    value, _ = parse(text, lambda line: f"f:{line}", problems)
    assert not problems
    return value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("5E5", 5e5),
        ("-.5", -0.5),
        ("2.", 2.0),
        ("3", 3),
        ("010", 10),
        ("true", True),
        ("False", False),
        ("~", None),
        ("", None),
        ("no", "no"),
        ("off", "off"),
        ("12:30:00", "12:30:00"),
        ("2024-01-01", "2024-01-01"),
        ("1_000", "1_000"),
        ("'1'", "1"),
        ("9" * 5000, float("inf")),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    found = read(text)
    assert found == value
    assert type(found) is type(value)


def test_keys_are_text_as_written() -> None:
    assert read("{1: a, no: b, 2.50: c}") == {"1": "a", "no": "b", "2.50": "c"}


def test_a_place_is_known_for_every_key_and_item() -> None:
    _, places = parse("a:\n  b: 1\n  c:\n  - x\n  - y\n", lambda line: f"f:{line}", [])
    assert places[("a", "b")] == "f:2: a.b"
    assert places[("a", "c", 1)] == "f:5: a.c.1"


def test_a_key_given_twice_names_both_lines() -> None:
    problems: list[Problem] = []
    value, _ = parse("a:\n  b: 1\n  c: 2\n  b: 3\n", lambda line: f"f:{line}", problems)
    assert list(map(str, problems)) == ["f:4: a.b: given twice, in lines 2 and 4; remove one"]
    assert value == {"a": {"b": 1, "c": 2}}


def test_a_key_that_is_no_text_is_refused() -> None:
    problems: list[Problem] = []
    parse("a: 1\n? [x]\n: 2\n", lambda line: f"f:{line}", problems)
    assert list(map(str, problems)) == ["f:2: a key that is not text"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: !!python/object/apply:os.system ['touch x']", "f:2: the tag .*os.system is not"),
        ("a: !!int '3'", "f:1: the tag .*int is not read, only plain values are"),
        ("a: &x [1]\nb: *x", "f:1: the anchor or alias x is not read; write the value out"),
        ("a:\n - b\n  c: [", "f:3: mapping values are not allowed here"),
        ("a: 1\n---\nb: 2", "f:2: expected a single document"),
        ("a: 1\nb: \0", r"f:2: the character U\+0000 may not stand in YAML"),
        ("[" * 5000, "f:1: nested too deeply"),
    ],
)
def test_what_is_not_plain_yaml_is_refused_with_its_line(text: str, message: str) -> None:
    with pytest.raises(BadInput, match=message):
        read(text)


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**18) + 1, 10**18 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | st.sampled_from(["no", "1e-4", "1:30", "0o7", "~", "", "- x", "#", "2024-01-01", "<<", "="]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=10,
)


@settings(deadline=None, max_examples=60)
@given(PLAIN)
def test_what_is_written_is_read_back(value: Any) -> None:
    assert read(dump(value)) == value


@settings(deadline=None, max_examples=60)
@given(st.text(max_size=10) | st.sampled_from(["no", "1e-4", "1:30", "2024-01-01", "0x1F"]))
def test_text_stays_text_for_readers_of_yaml_1_1_too(text: str) -> None:
    assert yaml.safe_load(dump({"key": text})) == {"key": text}
