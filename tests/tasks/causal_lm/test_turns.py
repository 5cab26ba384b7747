"""A turn of a conversation: whether it is learnt, and its calls of tools."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tasks.conversations import ANSWER, USER, read, refusal

LEARNT_KEYS = ["weight", "train", "training", "trainable"]
LEARNT_KEYS += ["loss", "loss_mask", "loss_weight", "loss_scale"]


@pytest.mark.parametrize("key", LEARNT_KEYS)
@pytest.mark.parametrize(("value", "weight"), [(0, 0), (0.0, 0), (False, 0), (1, 1), (True, 1)])
def test_what_marks_a_turn_as_learnt_or_not_becomes_its_weight(
    key: str, value: Any, weight: int
) -> None:
    for row in (
        {"messages": [USER, ANSWER | {key: value}]},
        {"conversations": [{"from": "human", "value": "q"},
                           {"from": "gpt", "value": "a", key: value}]},
        {"prompt": [USER], "completion": [ANSWER | {key: value}]},
    ):  # fmt: skip
        (fields,) = read(row)
        assert fields["messages"] == [USER, ANSWER | {"weight": weight}]


@pytest.mark.parametrize("key", ["mask", "masked"])
def test_a_masked_turn_has_no_weight(key: str) -> None:
    (fields,) = read({"messages": [USER, ANSWER | {key: True}, USER, ANSWER | {key: False}]})
    assert [message.get("weight") for message in fields["messages"]] == [None, 0, None, 1]


def test_a_mark_that_is_null_says_nothing() -> None:
    (fields,) = read({"messages": [USER | {"loss": None}, ANSWER | {"loss": None, "mask": None}]})
    assert fields["messages"] == [USER, ANSWER]


@pytest.mark.parametrize(
    ("marks", "error"),
    [
        ({"weight": 0.5}, "`weight` of message 2 of `messages` is 0.5, which does not tell whether "
         'it is learnt; write "weight": 0 (not learnt) or 1, or name the key otherwise'),
        ({"train": "no"}, "`train` of message 2 of `messages` is 'no', which does not tell"),
        ({"loss_mask": [0, 1]}, "`loss_mask` of message 2 of `messages` is [0, 1], which does not"),
        ({"mask": 1}, "`mask` of message 2 of `messages` is 1, which does not tell"),
        ({"loss": True, "weight": 0}, "weight, loss of message 2 of `messages` contradict each "
         "other; keep one of them"),
    ],
)  # fmt: skip
def test_a_mark_that_is_not_understood_is_refused(marks: dict[str, Any], error: str) -> None:
    assert refusal({"messages": [USER, ANSWER | marks]}).startswith(f"d.jsonl:1: {error}")


def test_what_is_null_in_a_turn_is_not_there() -> None:
    (fields,) = read({"messages": [USER | {"tool_calls": None, "name": None}, ANSWER]})
    assert fields["messages"] == [USER, ANSWER]


def called(arguments: Any, **more: Any) -> dict[str, Any]:
    call = {"type": "function", "function": {"name": "f", "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call | more]}


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ('{"city": "Paris"}', {"city": "Paris"}),
        ({"city": "Paris"}, {"city": "Paris"}),
        ({"text": '{"a": 1}'}, {"text": '{"a": 1}'}),  # within an object it is a text
        ('"{}"', "{}"),  # once
        ({"a": None}, {"a": None}),
        (" ", {}),
        (None, None),
    ],
)
def test_arguments_that_are_json_text_are_decoded_once(arguments: Any, expected: Any) -> None:
    (fields,) = read({"messages": [USER, called(arguments)]})
    (call,) = fields["messages"][1]["tool_calls"]
    assert call == {"type": "function", "function": {"name": "f", "arguments": expected}}


def test_calls_and_schemas_may_be_json_text_as_a_whole_or_each() -> None:
    call, schema = {"name": "f", "arguments": {"a": 1}}, {"name": "f", "parameters": {}}
    text = json.dumps(call)
    for calls in ([text], f"[{text}]", [call], [call | {"arguments": '{"a": 1}'}]):
        turn = {"role": "assistant", "content": "", "tool_calls": calls}
        (fields,) = read({"messages": [USER, turn]})
        assert fields["messages"][1]["tool_calls"] == [call]
    for tools in ([json.dumps(schema)], json.dumps([schema]), [schema]):
        (fields,) = read({"messages": [USER, ANSWER], "tools": tools})
        assert fields["tools"] == [schema]
    older = {"role": "assistant", "content": "", "function_call": {"name": "f", "arguments": "{}"}}
    (fields,) = read({"messages": [USER, older | {"content": "a"}]})
    assert fields["messages"][1]["function_call"] == {"name": "f", "arguments": {}}


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"messages": [USER, called('{"a": }')]},
         "the arguments of a tool call of message 2 of `messages`: no JSON (Expecting value); "
         "write them as an object"),
        ({"messages": [USER, called("[" * 100_000)]},
         "the arguments of a tool call of message 2 of `messages`: brackets within brackets, more "
         "than 500 deep; write it flatter"),
        ({"messages": [USER, ANSWER], "tools": ["{}", "f"]},
         "schema 2 of `tools`: no JSON (Expecting value); write an object"),
    ],
)  # fmt: skip
def test_what_is_no_json_text_is_refused_by_its_message(row: dict[str, Any], error: str) -> None:
    assert refusal(row) == f"d.jsonl:1: {error}"


@pytest.mark.parametrize("nothing", ["[]", "null", [], ""])
def test_an_answer_without_text_whose_calls_are_none_is_empty(nothing: Any) -> None:
    answer = {"role": "assistant", "content": "", "tool_calls": nothing}
    assert "the assistant's, is empty" in refusal({"messages": [USER, answer]})


def test_parts_of_a_schema_may_be_json_text() -> None:
    parameters = {"type": "object", "properties": {}}
    function = {"name": "f", "parameters": json.dumps(parameters)}
    for written in (function, json.dumps(function)):
        tools = [{"type": "function", "function": written}]
        (fields,) = read({"messages": [USER, ANSWER], "tools": tools})
        assert fields["tools"][0]["function"] == {"name": "f", "parameters": parameters}
