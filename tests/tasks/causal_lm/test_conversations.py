"""Every way to write a conversation becomes one form, and what is wrong with one is named."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from tasks.conversations import ANSWER, SYSTEM, USER, read, refusal, told

from bigft.config.errors import BadInput, Problem
from bigft.data.records import Record
from bigft.tasks.causal_lm.conversations import (
    columns,
    last_prompt,
    normalised,
    prompt_record,
)


@pytest.mark.parametrize(
    ("row", "messages", "form"),
    [
        ({"messages": [SYSTEM, USER, ANSWER]}, [SYSTEM, USER, ANSWER], "messages"),
        ({"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
         [USER, ANSWER], "messages"),
        ({"system": "s", "conversations": [{"from": "user", "value": "q"},
                                           {"from": "bot", "value": "a"}]},
         [SYSTEM, USER, ANSWER], "messages"),
        ({"instruction": "q", "input": "", "output": "a"}, [USER, ANSWER], "instruction"),
        ({"instruction": "q", "input": "i", "output": "a"},
         [{"role": "user", "content": "q\n\ni"}, ANSWER], "instruction"),
        ({"instruction": "q", "output": "a", "system": "s", "history": [["q", "a"]]},
         [SYSTEM, USER, ANSWER, USER, ANSWER], "instruction"),
        ({"prompt": "q", "completion": "a"}, [USER, ANSWER], "prompt"),
        ({"prompt": [USER], "completion": [ANSWER]}, [USER, ANSWER], "messages"),
    ],
)  # fmt: skip
def test_a_conversation_becomes_messages(
    row: dict[str, Any], messages: list[dict[str, str]], form: str
) -> None:
    (fields,) = read(row)
    assert (fields["messages"], fields["form"]) == (messages, form)


def test_a_prompt_of_messages_is_not_learnt() -> None:
    (fields,) = read({"prompt": [USER, ANSWER, USER], "completion": [ANSWER]})
    assert fields["first_answer"] == 3


def test_tools_and_calls_are_the_templates_matter() -> None:
    call = {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}], "content": None}
    result = {"role": "tool", "content": "5"}
    (fields,) = read({"messages": [USER, call, result, ANSWER], "tools": '[{"name": "f"}]'})
    calls = {"role": "assistant", "tool_calls": [{"function": {"name": "f"}}]}
    assert fields["messages"] == [USER, calls, result, ANSWER]
    assert fields["tools"] == [{"name": "f"}]
    (fields,) = read({"conversations": [
        {"from": "human", "value": "q"}, {"from": "function_call", "value": "f()"},
        {"from": "observation", "value": "5"}, {"from": "gpt", "value": "a"},
    ]})  # fmt: skip
    assert [m["role"] for m in fields["messages"]] == ["user", "assistant", "tool", "assistant"]


def test_a_call_of_sharegpt_is_one_for_the_template() -> None:
    call = {"name": "f", "arguments": {"a": 1}}
    for value in (
        json.dumps(call),
        json.dumps([call, call]),
        json.dumps(call | {"arguments": "{}"}),
    ):
        turn = {"from": "function_call", "value": value}
        (fields,) = read({"conversations": [{"from": "human", "value": "q"}, turn]})
        _, answer = fields["messages"]
        assert "content" not in answer
        assert {each["type"] for each in answer["tool_calls"]} == {"function"}
        arguments = [each["function"]["arguments"] for each in answer["tool_calls"]]
        assert arguments == ([{}] if '"{}"' in value else [{"a": 1}] * (1 + value.startswith("[")))


@pytest.mark.parametrize("value", ["f()", "{}", '["f"]', '{"name": 1}', "7"])
def test_what_is_no_call_stays_the_answers_text(value: str) -> None:
    turn = {"from": "function_call", "value": value}
    (fields,) = read({"conversations": [{"from": "human", "value": "q"}, turn]})
    assert fields["messages"][1] == {"role": "assistant", "content": value}


def test_plain_text() -> None:
    assert read({"text": "t", "id": 5}) == [{"text": "t"}]


def test_named_columns_are_prompt_and_answer_or_text() -> None:
    row = {"question": "q", "answer": "a", "text": "other"}
    (fields,) = read(row, text="question", label="answer")
    assert (fields["messages"], fields["form"]) == ([USER, ANSWER], "instruction")
    assert read(row, text="answer") == [{"text": "a"}]
    assert read({"0": "x", "1": "y"}, text=1) == [{"text": "y"}]


def test_one_record_of_self_instruct_may_be_several_samples() -> None:
    instances = [{"input": "1", "output": "a"}, {"input": "2", "output": "b"}]
    rows = [{"instruction": "q", "instances": instances}, {"instruction": "r", "instances": [
        {"input": "", "output": "c"}]}]  # fmt: skip
    found = read(*rows)
    expected = [["q\n\n1", "a"], ["q\n\n2", "b"], ["r", "c"]]
    assert [[each["content"] for each in fields["messages"]] for fields in found] == expected


def test_files_of_one_split_may_have_different_forms() -> None:
    records = [
        Record(0, {"messages": [USER, ANSWER]}, "a.jsonl", 1),
        Record(1, {"prompt": "q", "completion": "a"}, "b.jsonl", 1),
    ]
    found = normalised(records, text_column_name=None, label_column_name=None)
    assert [record.fields["form"] for record in found] == ["messages", "prompt"]


# -- refused ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "error"),
    [
        ({"content": "q"},
         "message 1 of `messages` has no role (keys: content); give it \"role\" (or \"from\")"),
        ({"role": "usr", "content": "q"},
         "message 1 of `messages` has the unknown role 'usr'; did you mean user?"),
        ({"role": "user", "content": ["q"]},
         "the content of message 1 of `messages` is list, not a string; write its text under "
         '"content" (or "value")'),
        ({"role": "user"},
         "the content of message 1 of `messages` is NoneType, not a string; write its text under "
         '"content" (or "value")'),
        ({"role": "assistant", "content": " \n"},
         "message 1 of `messages`, the assistant's, is empty; write an answer or delete it"),
        ("q", 'message 1 of `messages` is no object; write {"role": "user", "content": "..."}'),
    ],
)  # fmt: skip
def test_a_message_that_is_none(message: Any, error: str) -> None:
    assert refusal({"messages": [message, ANSWER]}) == f"d.jsonl:1: {error}"


@pytest.mark.parametrize(
    ("row", "error"),
    [
        ({"messages": [USER]},
         "no assistant's message in `messages`; nothing could be learnt from it"),
        ({"messages": []},
         '`messages` is no list of messages; write [{"role": "user", "content": ""}]'),
        ({"instruction": "q", "output": ""},
         "`output`, the assistant's answer, is empty; write one, or delete it"),
        ({"instruction": 5, "output": "a"},
         "`instruction` is int, not a string; write it as a string"),
        ({"instruction": "q", "output": "a", "history": [["q"]]},
         '`history` is no list of pairs of strings; write [["...", "..."]]'),
        ({"instruction": "q", "instances": ["a"]},
         '`instances` is no list of objects; write [{"input": "", "output": "..."}]'),
        ({"prompt": "q", "completion": [ANSWER]},
         "one of prompt and completion is a list, the other is not; write both alike"),
        ({"text": " "}, "an empty text; write something or delete it"),
        ({"messages": [USER, ANSWER], "tools": "{"},
         "`tools`: no JSON (Expecting property name enclosed in double quotes); write a list of "
         "schemas"),
    ],
)  # fmt: skip
def test_a_record_that_is_none(row: dict[str, Any], error: str) -> None:
    assert refusal(row) == f"d.jsonl:1: {error}"


def test_a_record_of_no_known_form_names_its_fields() -> None:
    error = refusal({"question": "q", "answer": "a"})
    assert error.startswith("d.jsonl:1: none of the known forms (messages, conversations, ")
    assert error.endswith(
        "its fields: question, answer; name the columns in data.text_column_name (the prompt) and "
        "data.label_column_name (the answer)"
    )


def test_a_record_of_another_form_than_its_file() -> None:
    error = refusal({"messages": [USER, ANSWER]}, {"text": "t"})
    assert error == (
        "d.jsonl:2: the form text (fields: text) in a file that began as messages at line 1; put "
        "one form in a file"
    )


def test_a_column_that_is_not_there() -> None:
    error = refusal({"question": "q", "answer": "a"}, text="question", label="anser")
    assert error == "d.jsonl:1: no field 'anser'; did you mean answer?"
    assert refusal({"text": "a"}, label="text") == (
        "data.label_column_name: 'text' is the column of the answers, but none is named for the "
        "prompts; give data.text_column_name too"
    )


def test_all_bad_records_are_told_and_the_good_ones_come_through() -> None:
    rows: Sequence[dict[str, Any]] = [{"text": "a"}, {"text": ""}, {"text": "b"}, {"text": 5}]
    records = [Record(number, row, "d.jsonl", number + 1) for number, row in enumerate(rows)]
    stream = normalised(records, text_column_name=None, label_column_name=None)
    assert [next(stream).fields, next(stream).fields] == [{"text": "a"}, {"text": "b"}]
    with pytest.raises(BadInput) as caught:
        next(stream)
    assert [problem.where for problem in caught.value.problems] == ["d.jsonl:2", "d.jsonl:4"]


@pytest.mark.parametrize(
    ("messages", "found"),
    [
        ([USER, ANSWER, {"role": "user", "content": "r"}], "q"),
        ([USER, ANSWER, USER, ANSWER | {"weight": 0}], "q"),
        ([SYSTEM, ANSWER, USER, ANSWER | {"weight": 0}], "s"),
        ([ANSWER, USER], ""),
        ([USER], ""),
        ([USER, ANSWER | {"weight": 0}], ""),
    ],
)
def test_what_the_last_answer_that_may_be_learnt_answers(messages: Any, found: str) -> None:
    assert last_prompt({"messages": messages}) == found


# -- prompts ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "messages", "form"),
    [
        ({"messages": [SYSTEM, USER]}, [SYSTEM, USER], "messages"),
        ({"messages": [USER, ANSWER]}, [USER], "messages"),
        ({"conversations": [{"from": "human", "value": "q"}]}, [USER], "messages"),
        ({"instruction": "q", "input": "i"}, [{"role": "user", "content": "q\n\ni"}],
         "instruction"),
        ({"prompt": "q"}, [USER], "prompt"),
        ({"prompt": [USER]}, [USER], "messages"),
    ],
)  # fmt: skip
def test_a_prompt_is_what_is_to_be_answered(
    fields: dict[str, Any], messages: list[dict[str, str]], form: str
) -> None:
    record = prompt_record(Record(0, fields, "p.jsonl", 3))
    assert (record.fields["messages"], record.fields["form"]) == (messages, form)


def test_an_object_without_a_prompt_is_named() -> None:
    with pytest.raises(BadInput) as caught:
        prompt_record(Record(0, {"query": "q"}, "p.jsonl", 3))
    assert str(caught.value).startswith("p.jsonl:3: no prompt in the object (fields: query); ")
    for messages in ([ANSWER], [SYSTEM, ANSWER]):
        with pytest.raises(BadInput, match="no message to answer in 'messages'"):
            prompt_record(Record(0, {"messages": messages}, "p.jsonl", 3))


# -- what is not done with a record -------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "notes"),
    [
        ({"messages": [USER, ANSWER]}, []),
        ({"messages": [USER | {"weight": 0}, ANSWER]}, []),
        ({"messages": [USER, ANSWER, USER]},
         ["end with a turn of the user, which no answer follows"]),
        ({"messages": [USER, ANSWER, {"role": "tool", "content": "r"}]},
         ["end with a turn of the tool, which no answer follows"]),
        ({"messages": [USER | {"train": True}, ANSWER, USER | {"train": True}, ANSWER]},
         ["mark a turn of the user as one to learn: only answers are"]),
        ({"messages": [USER, ANSWER], "loss_mask": [0, 1]},
         ["hold a field 'loss_mask', which is not read: mark the messages themselves"]),
        ({"instruction": "q", "output": "a", "weight": 0},
         ["hold a field 'weight', which is not read: mark the messages themselves"]),
        ({"text": "t", "mask": "t"},
         ["hold a field 'mask', which is not read: mark the messages themselves"]),
    ],
)  # fmt: skip
def test_what_is_not_done_with_a_record_is_told(row: dict[str, Any], notes: list[str]) -> None:
    assert told(row) == notes


UNREAD = "hold a field {!r}, which is not read: mark the messages themselves"
TWO_PAIRS = {"messages": [SYSTEM, USER, ANSWER, USER, ANSWER]}


@pytest.mark.parametrize(
    ("name", "value", "is_told"),
    [
        ("loss_masks", [0, 0, 1, 0, 1], True),
        ("loss_masks", [[0.5], 1], False),
        ("train_mask", [0, 1], True),
        ("weights", [0.5, 1.0], True),
        ("trainable_turns", [True], True),
        ("learn", False, True),
        ("Loss_Weights", 1, True),
        ("keep", [0, 0, 1, 0, 1], True),  # one for each turn
        ("keep", [False, None, False, True], True),  # but for the system's
        ("keep", [False, True], True),  # for each answer
        ("keep", [None, None], False),
        ("keep", [0, 1, 0], False),
        ("keep", [1, 2], False),
        ("keep", ["a", "b"], False),
        ("keep", 1, False),
        ("learn", "well", False),
        ("train_step", 100, False),
        ("id", [], False),
    ],
)
def test_a_mark_beside_the_messages_is_told_whatever_its_spelling(
    name: str, value: Any, is_told: bool
) -> None:
    assert told(TWO_PAIRS | {name: value}) == ([UNREAD.format(name)] if is_told else [])


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [USER, ANSWER]},
        {"conversations": [USER, ANSWER]},
        {"prompt": [USER], "completion": [ANSWER]},
        {"prompt": "q", "completion": "a"},
        {"instruction": "q", "output": "a"},
    ],
)
def test_a_field_of_the_system_stands_before_the_turns(row: dict[str, Any]) -> None:
    (fields,) = read(row | {"system": "s"})
    assert fields["messages"] == [SYSTEM, USER, ANSWER]
    assert fields.get("first_answer", 2) == 2
    assert told(row | {"system": "s"}) == []
    for nothing in (None, ""):
        (fields,) = read(row | {"system": nothing})
        assert fields["messages"] == [USER, ANSWER]
    assert refusal(row | {"system": 5}) == (
        "d.jsonl:1: `system` is int, not a string; write it as a string"
    )
    prompt = prompt_record(Record(0, row | {"system": "s"}, "p.jsonl", 3))
    assert prompt.fields["messages"] == [SYSTEM, USER]


@pytest.mark.parametrize("role", ["system", "developer"])
@pytest.mark.parametrize("name", ["messages", "conversations"])
def test_a_turn_of_the_system_counts_more_than_the_field(name: str, role: str) -> None:
    talk = [SYSTEM | {"role": role}, USER, ANSWER]
    for field, notes in (
        ("s", []),
        ("", []),
        ("t", ["hold a field 'system', which is not read: a turn of the system says otherwise"]),
    ):
        (fields,) = read({name: talk, "system": field})
        assert fields["messages"] == talk
        assert told({name: talk, "system": field}) == notes


@pytest.mark.parametrize("name", ["system_prompt", "functions", "chat_template_kwargs"])
def test_what_other_tools_read_and_this_one_does_not_is_told(name: str) -> None:
    talk = {"messages": [USER, ANSWER]}
    assert told({**talk, name: {"a": 1}}) == [f"hold a field {name!r}, which is not read"]
    assert told({**talk, name: None}) == []


@pytest.mark.parametrize("row", [{"messages": [USER, ANSWER]}, {"prompt": "q", "completion": "a"}])
def test_answers_that_are_labelled_as_good_or_bad_are_told(row: dict[str, Any]) -> None:
    for label in (True, False):
        (note,) = told(row | {"label": label})
        assert note.endswith("which is not read: what is false is learnt too")
    assert told(row | {"label": 3}) == told({"text": "a", "label": True}) == []


def test_the_fields_that_may_be_taken_are_those_named_or_of_any_form() -> None:
    assert columns("q", "a") == {"q", "a"}
    assert columns(0, None) == {"0"}
    assert {"messages", "conversations", "tools", "system", "text"} < columns(None, None)


def test_what_the_reader_refuses_hides_no_record_that_cannot_be_used() -> None:
    def broken() -> Iterator[Record]:
        yield Record(0, {"messages": [{"role": "assistent", "content": "x"}]}, "a.jsonl", 1)
        raise BadInput(Problem("a.jsonl:2", "no JSON"))

    with pytest.raises(BadInput) as caught:
        list(normalised(broken(), text_column_name=None, label_column_name=None))
    first, second = map(str, caught.value.problems)
    assert first == "a.jsonl:2: no JSON"
    assert second.startswith("a.jsonl:1: message 1 of `messages` has the unknown role 'assistent'")
