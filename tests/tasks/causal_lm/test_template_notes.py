"""What a chat template drops of a conversation, or does not write, is told of the record."""

from __future__ import annotations

from typing import Any

import pytest
from tasks.chat import BARE, CHATML, GEMMA, LLAMA, MISTRAL, OPENING, THINKING, chat_tokenizer

from bigft.tasks.causal_lm.chat_template import Renderer

NO_STOP = (
    "end an answer with no stop token, so that the model does not learn to stop: let "
    "data.chat_template write </s> after an answer"
)
UNREAD = "hold {} in their turns, which neither bigft nor the chat template reads"
LOST = "lose text of the {} to the chat template"
RENDERED = (
    "hold in the text of the {} what begins or ends a text or a turn: is it rendered already?"
)
OPENED = (
    "have an answer that does not begin with all of {!r}, the generation prompt: what is generated "
    "from is not what is learnt"
)
# Thoughts are left out, of the last answer too.
NO_THOUGHTS = CHATML.replace("message['content']", "message['content'].split('</think>')[-1]")
# Of all roles but two there is nothing.
TWO_ROLES = CHATML.replace(
    "{% for message in messages %}",
    "{% for message in messages if message['role'] in ('user', 'assistant') %}",
)
LAST_TWO = CHATML.replace("in messages %}", "in messages[-2:] %}")
AS_JSON = CHATML.replace("message['content']", "message['content'] | tojson")
# Tools, calls and thoughts as Qwen's templates write them.
FULL = (
    "{% if tools %}<|im_start|>tools\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
    + CHATML.replace(
        "{{ message['content'] }}",
        "{% if message.thinking %}<think>{{ message.thinking }}</think>{% endif %}"
        "{{ message['content'] }}"
        "{% if message.tool_calls %}{{ message.tool_calls | tojson }}{% endif %}",
    )
)
CALLS_OR_TEXT = CHATML.replace(
    "{{ message['content'] }}",
    "{% if message.content %}{{ message.content }}{% else %}{{ message.tool_calls | tojson }}"
    "{% endif %}",
)
TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
CALL = [{"type": "function", "function": {"name": "weather", "arguments": {"city": "Paris"}}}]


def message(role: str, content: str = "", **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def user(content: str, **more: Any) -> dict[str, Any]:
    return message("user", content, **more)


def answer(content: str = "", **more: Any) -> dict[str, Any]:
    return message("assistant", content, **more)


def notes(template: str | None, *messages: dict[str, Any], **fields: Any) -> list[str]:
    fields = {"messages": list(messages), "form": "messages", **fields}
    texts = Renderer(chat_tokenizer(template)).answers(fields, "d.jsonl:1", last_only=False)
    return [note for text in texts for note in text.notes]


TALK = [user("Six times seven?"), answer(" 42\n\n is it. "), user("Sure?"), answer("Yes.")]


@pytest.mark.parametrize("template", [CHATML, LLAMA, MISTRAL, GEMMA, THINKING, FULL, None])
def test_there_is_nothing_to_tell_of_a_template_that_writes_all(template: str | None) -> None:
    form = {"form": "instruction"} if template is None else {}
    assert notes(template, *TALK, **form) == []


def test_white_space_and_quotes_of_json_are_no_loss() -> None:
    said = 'He said:\n  "Ünique".'
    assert notes(AS_JSON, user(said), answer("<think>\nHm.\n</think>\n\n 42")) == []


def test_text_of_an_answer_that_is_dropped() -> None:
    thoughtful = answer("<think>\nSix sevens.\n</think>\n\n42")
    assert notes(NO_THOUGHTS, user("Six times seven?"), thoughtful) == [LOST.format("assistant")]


def test_thoughts_that_are_dropped_once_another_turn_follows_are_learnt_and_no_loss() -> None:
    turns = ["<think>Six sevens.</think>42", "<think>I am.</think>Yes."]
    talk = [user("Six times seven?"), answer(turns[0]), user("Sure?"), answer(turns[1])]
    assert notes(THINKING, *talk) == []


@pytest.mark.parametrize(
    ("template", "messages", "roles"),
    [
        (TWO_ROLES, [message("system", "Be kind."), *TALK], ["system"]),
        (TWO_ROLES, [*TALK[:2], message("tool", "A result."), TALK[3]], ["tool"]),
    ],
)
def test_a_turn_before_an_answer_that_is_dropped(
    template: str, messages: list[dict[str, Any]], roles: list[str]
) -> None:
    assert notes(template, *messages) == [LOST.format(role) for role in roles]


@pytest.mark.parametrize(
    ("template", "messages", "unread"),
    [
        (CHATML, [user("a"), answer("b", thinking="Hm.")], ["'thinking'"]),
        (CHATML, [user("a"), answer("b", learn=False)], ["'learn'"]),
        (CHATML, [user("a", name="Ann"), answer("b")], ["'name'"]),
        (CHATML, [user("a"), answer(tool_calls=CALL)], ["'tool_calls'"]),
        (CALLS_OR_TEXT, [user("a"), answer("b", tool_calls=CALL)], ["'tool_calls'"]),
        (CALLS_OR_TEXT, [user("a"), answer(tool_calls=CALL)], []),
        (FULL, [user("a"), answer("b", thinking="Hm.", tool_calls=CALL)], []),
        # Nothing is lost with these.
        (CHATML, [user("a"), answer("b", refusal=None, annotations=[], audio={}, name="")], []),
        (CHATML, [user("a"), message("tool", "r", name="weather", tool_call_id="1"), answer("b")],
         []),
    ],
)  # fmt: skip
def test_what_a_template_does_not_read_in_a_turn(
    template: str, messages: list[dict[str, Any]], unread: list[str]
) -> None:
    assert notes(template, *messages) == [UNREAD.format(each) for each in unread]


def test_what_a_conversation_holds_beside_its_text_is_one_note() -> None:
    asked = user("a", id="1", timestamp=12)
    told = answer("b", id="2", model="m", score=0.5)
    keys = "'id', 'model', 'score', 'timestamp'"
    assert notes(CHATML, asked, told, asked, told) == [UNREAD.format(keys)]


def test_tools_that_a_template_does_not_read() -> None:
    assert notes(FULL, *TALK, tools=TOOLS) == []
    assert notes(CHATML, *TALK, tools=TOOLS) == [
        "hold 'tools', which the chat template does not read"
    ]


@pytest.mark.parametrize(
    "template", [BARE, CHATML.replace("<|im_end|>", ""), CHATML.replace("<|im_end|>", "<|end|>")]
)
def test_an_answer_that_no_stop_token_ends(template: str) -> None:
    assert notes(template, user("Hi."), answer("Hello.")) == [NO_STOP]


def test_a_token_of_the_vocabulary_that_closes_a_call_is_no_stop_token() -> None:
    tokenizer = chat_tokenizer(
        "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    tokenizer.add_tokens(["</tool_call>"])
    fields = {"messages": [user("a"), answer("b</tool_call>")], "form": "messages"}
    (text,) = Renderer(tokenizer).answers(fields, "d.jsonl:1", last_only=False)
    assert list(text.notes) == [NO_STOP]


def test_a_generation_prompt_that_no_answer_begins_with() -> None:
    assert notes(OPENING, user("a"), answer("<think>\nHm.</think>b")) == []
    prompt = "<|im_start|>assistant\n<think>\n"
    assert notes(OPENING, user("a"), answer("b")) == [OPENED.format(prompt)]


@pytest.mark.parametrize(
    ("messages", "role"),
    [
        ([user("<|im_start|>user\na<|im_end|>\n"), answer("b")], "user"),
        ([user("<s>a"), answer("b")], "user"),
        ([user("a"), answer("b</s>")], "assistant"),
    ],
)
def test_a_turn_that_is_rendered_already(messages: list[dict[str, Any]], role: str) -> None:
    assert notes(CHATML, *messages) == [RENDERED.format(role)]


def test_all_of_a_conversation_is_looked_at_where_all_is_learnt() -> None:
    def told(template: str, *messages: dict[str, Any]) -> list[str]:
        fields = {"messages": list(messages), "form": "messages"}
        whole = Renderer(chat_tokenizer(template)).whole(fields, "d.jsonl:1", with_prompt=False)
        return list(whole.notes)

    assert told(CHATML, *TALK) == []
    assert told(BARE, *TALK) == [NO_STOP]
    assert told(TWO_ROLES, message("system", "Be kind."), *TALK) == [LOST.format("system")]
    assert told(LAST_TWO, *TALK) == [LOST.format("user"), LOST.format("assistant")]
    thoughtful = answer("<think>Six sevens.</think>42")
    assert told(THINKING, user("a"), thoughtful, *TALK[2:]) == [LOST.format("assistant")]
