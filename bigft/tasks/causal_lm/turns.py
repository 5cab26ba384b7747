"""One turn of a conversation, as any of the known formats writes it, in OpenAI's form."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bigft.data.formats.base import did_you_mean
from bigft.data.formats.json_rows import NoJson, parse

Message = dict[str, Any]
Fields = Mapping[str, Any]

CALLS = "function_call"  # ShareGPT's role of an answer that is a call, written as JSON
ROLES = {
    **{name: name for name in ("system", "developer", "user", "assistant", "tool")},
    # ShareGPT's and its descendants'
    "human": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    CALLS: "assistant",
    "function": "tool",
    "function_response": "tool",
    "observation": "tool",
}
ASSISTANT = "assistant"
# What says in a message whether it is learnt: in the data of OpenAI and Mistral (weight), axolotl
# (train, training), tinker (trainable), ms-swift, xtuner, slime (loss), verl (loss_mask),
# LLaMA-Factory (loss, loss_weight), torchtune (masked). 0 and 1, or false and true.
LEARNT = ("weight", "train", "training", "trainable", "loss", "loss_mask", "loss_weight",
          "loss_scale")  # fmt: skip
MASKED = ("mask", "masked")
SYSTEM = ("system", "developer")


class Wrong(ValueError):
    """args: what, fix."""


def is_learnt(message: Message) -> bool:
    """Whether it is an answer that nothing marks as not to be learnt."""
    return bool(message["role"] == ASSISTANT and message.get("weight") != 0)


def messages_of(value: Any, name: str) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise Wrong(f"`{name}` is no list of messages", 'write [{"role": "user", "content": ""}]')
    return [_message(message, f"message {at} of `{name}`") for at, message in enumerate(value, 1)]


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, dict):
        raise Wrong(f"{where} is no object", 'write {"role": "user", "content": "..."}')
    role = value.get("role") or value.get("from")
    if role is None:
        keys = ", ".join(value)
        raise Wrong(f"{where} has no role (keys: {keys})", 'give it "role" (or "from")')
    if not isinstance(role, str) or role not in ROLES:
        fix = did_you_mean(str(role), list(ROLES)) or f"there are {', '.join(ROLES)}"
        raise Wrong(f"{where} has the unknown role {role!r}", fix)
    content = value.get("content", value.get("value"))
    read = ("role", "from", "content", "value", *LEARNT, *MASKED)
    # A null says nothing; Arrow gives it to every turn that lacks a key of another.
    message = {key: value[key] for key in value if key not in read and value[key] is not None}
    message = {"role": ROLES[role], **message, **_weight(value, where)}
    if role == CALLS and (spelled := _calls_in(content)):
        content, message["tool_calls"] = None, spelled
    if message.get("tool_calls"):
        message["tool_calls"] = _tool_calls(message["tool_calls"], where)
    if message.get("function_call"):
        message["function_call"] = _call(message["function_call"], where)
    calls = message.get("tool_calls") or message.get("function_call")  # none is no call
    if content is None and calls:
        return message
    if not isinstance(content, str):
        raise Wrong(
            f"the content of {where} is {type(content).__name__}, not a string",
            'write its text under "content" (or "value")',
        )
    if ROLES[role] == ASSISTANT and not content.strip() and not calls:
        raise Wrong(f"{where}, the assistant's, is empty", "write an answer or delete it")
    return message | {"content": content}


def _calls_in(content: Any) -> list[Any]:
    """What a text spells of calls: an object with a name, or a list of them; [] where it is another
    text."""
    try:
        value = parse(content, "") if isinstance(content, str) else content
    except NoJson:
        return []
    calls = value if isinstance(value, list) else [value]
    if not all(isinstance(call, dict) and isinstance(call.get("name"), str) for call in calls):
        return []
    return [{"type": "function", "function": call} for call in calls]


def _weight(message: Fields, where: str) -> Message:
    """Whether it is learnt, as OpenAI writes it; {} where nothing tells."""
    if message.keys().isdisjoint((*LEARNT, *MASKED)):
        return {}
    told = {key: message[key] for key in (*LEARNT, *MASKED) if message.get(key) is not None}
    for key, value in told.items():
        # 1 is "learnt" in many a mask, and "masked" in others.
        if not isinstance(value, bool) and (key in MASKED or value not in (0, 1)):
            raise Wrong(
                f"`{key}` of {where} is {value!r}, which does not tell whether it is learnt",
                'write "weight": 0 (not learnt) or 1, or name the key otherwise',
            )
    weights = {int(bool(value) != (key in MASKED)) for key, value in told.items()}
    if len(weights) > 1:
        raise Wrong(f"{', '.join(told)} of {where} contradict each other", "keep one of them")
    return {"weight": weights.pop()} if weights else {}


def tools_of(value: Any) -> Any:
    """Templates want schemas, not their JSON texts."""
    tools = _decoded(value, "`tools`", "write a list of schemas")
    if not isinstance(tools, list):
        return tools
    return [
        _schema(_decoded(tool, f"schema {at} of `tools`", "write an object"), at)
        for at, tool in enumerate(tools, 1)
    ]


def _schema(tool: Any, at: int) -> Any:
    """Its parts may be JSON text, too."""
    if not isinstance(tool, dict):
        return tool
    parts = {
        name: _schema(_decoded(tool[name], f"`{name}` of schema {at}", "write an object"), at)
        for name in ("function", "parameters")
        if isinstance(tool.get(name), str | dict)
    }
    return tool | parts


def _tool_calls(value: Any, where: str) -> Any:
    """Templates want the arguments of a call as an object; OpenAI's answers hold its JSON text."""
    calls = _decoded(value, f"the tool calls of {where}", "write a list of calls")
    return [_call(call, where) for call in calls] if isinstance(calls, list) else calls


def _call(value: Any, where: str) -> Any:
    call = _decoded(value, f"a tool call of {where}", "write an object")
    if not isinstance(call, dict):
        return call
    if "function" in call:
        return call | {"function": _call(call["function"], where)}
    if not isinstance(call.get("arguments"), str):
        return call
    text = call["arguments"].strip() or "{}"  # what some servers write where there are none
    name = f"the arguments of a tool call of {where}"
    return call | {"arguments": _decoded(text, name, "write them as an object")}


def _decoded(value: Any, name: str, fix: str) -> Any:
    """What a JSON text spells, once; another value as it is."""
    if not isinstance(value, str):
        return value
    try:
        return parse(value, fix)
    except NoJson as error:
        raise Wrong(f"{name}: {error.what}", error.fix) from None
