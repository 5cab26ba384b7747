"""One form for every way to write what a language model learns from.

A record becomes {"text"}, or {"messages", "form", "first_answer", "tools"}: `messages` as OpenAI
writes them (`weight: 0` is an answer that is not learnt), `first_answer` the message from which on
answers may be targets. "markers": fields beside them that may tell what is learnt and are not read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, NamedTuple

from bigft.config.errors import BadInput, Problem
from bigft.data.formats.base import MAX_PROBLEMS, capped, did_you_mean
from bigft.data.formats.json_rows import NoJson, parse
from bigft.data.records import Record

Message = dict[str, Any]
Fields = Mapping[str, Any]

ROLES = {
    **{name: name for name in ("system", "developer", "user", "assistant", "tool")},
    # ShareGPT's and its descendants'
    "human": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "function_call": "assistant",
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


class Form(NamedTuple):
    """fields: those that tell the form.  read: the fields' normalised ones; several of a record
    that holds several samples."""

    fields: tuple[str, ...]
    read: Callable[[Fields], list[dict[str, Any]]]


class _Wrong(ValueError):
    """args: what, mend."""


def columns(text: str | int | None, label: str | int | None) -> frozenset[str]:
    """The fields that `normalised` may take, given the names that the config gives."""
    named = frozenset(str(name) for name in (text, label) if name is not None)
    return named or frozenset(FURTHER_FIELDS).union(*(form.fields for form in FORMS.values()))


def normalised(
    records: Iterable[Record],
    *,
    text_column_name: str | int | None,
    label_column_name: str | int | None,
) -> Iterator[Record]:
    """The records in the one form, numbered anew; a stream.

    text_column_name, label_column_name: columns of prompt and answer; the first alone: of plain
        text. None: the form is found by the fields, for each file by its first record.
    Raises BadInput at the end with up to MAX_PROBLEMS records that cannot be used: of an unknown
    form or another one than their file's, without an answer, with a role that is none.
    """
    named = _named_form(text_column_name, label_column_name)
    forms: dict[str, tuple[str, Record]] = {}  # by file: its form, and where it was seen first
    problems: list[Problem] = []
    number = 0
    for record in records:
        try:
            name, form = named or _found_form(record)
            known, first = forms.setdefault(record.file, (name, record))
            if name != known:
                raise _Wrong(
                    f"the form {name} (fields: {', '.join(record.fields)}) in a file that began "
                    f"as {known} at line {first.line}",
                    "put one form in a file",
                )
            samples = form.read(record.fields)
        except _Wrong as error:
            problems.append(Problem(record.where, *error.args))
            if len(problems) > MAX_PROBLEMS:
                break
            continue
        markers = [name for name in (*LEARNT, *MASKED) if record.fields.get(name) is not None]
        for fields in samples:
            fields |= {"markers": markers} if markers else {}
            yield replace(record, index=number, fields=fields)
            number += 1
    if problems:
        raise BadInput(capped(problems, problems[0].where.rpartition(":")[0]))


def prompt_record(record: Record) -> Record:
    """A record without an answer in the same form: `messages`, `prompt`, `instruction` or `text`.

    Answers at the end of `messages` are cut off. Raises BadInput, naming file and line.
    """
    fields = record.fields
    try:
        if "messages" in fields or "conversations" in fields:
            name = "messages" if "messages" in fields else "conversations"
            messages = _messages(fields[name], name)
            while messages and messages[-1]["role"] == ASSISTANT:
                messages.pop()
            if not messages:
                raise _Wrong(f"no message to answer in {name!r}", "end it with a user's message")
            return replace(record, fields=_chat(messages, fields))
        if "instruction" in fields:
            return replace(record, fields=_instruction({**fields, "output": None}))
        for name in ("prompt", "text"):
            if isinstance(fields.get(name), list):
                return replace(record, fields=_chat(_messages(fields[name], name), fields))
            if name in fields:
                message = {"role": "user", "content": _text(fields, name)}
                return replace(record, fields=_chat([message], {}, "prompt"))
        raise _Wrong(
            f"no prompt in the object (fields: {', '.join(fields)})",
            'write {"text": "..."}, {"prompt": ...}, {"messages": [...]} or {"instruction": "..."}',
        )
    except _Wrong as error:
        raise BadInput(Problem(record.where, *error.args)) from None


def last_answer(fields: Fields) -> tuple[str, str]:
    """The last answer that may be learnt, and the message that it answers; "" if there is none."""
    texts = {-1: "", **{at: m.get("content", "") for at, m in enumerate(fields["messages"])}}
    answers = [at for at, message in enumerate(fields["messages"]) if is_learnt(message)]
    last = max(answers, default=-1)
    return texts[last], texts[max(last - 1, -1)]


def is_learnt(message: Message) -> bool:
    """Whether it is an answer that nothing marks as not to be learnt."""
    return bool(message["role"] == ASSISTANT and message.get("weight") != 0)


def conversation_notes(fields: Fields) -> list[str]:
    """What is not done with a record that its author may have meant: see Feature.notes."""
    notes = [
        f"hold a field {name!r}, which is not read: mark the messages themselves"
        for name in fields.get("markers", ())
    ]
    messages = fields.get("messages", ())
    asked = [m["role"] for m in messages if m["role"] != ASSISTANT and m.get("weight") == 1]
    notes += [
        f"mark a turn of the {role} as one to learn: only answers are"
        for role in dict.fromkeys(asked)
    ]
    if messages and messages[-1]["role"] != ASSISTANT:
        notes.append(f"end with a turn of the {messages[-1]['role']}, which no answer follows")
    return notes


# -- which form ---------------------------------------------------------------------------------


def _found_form(record: Record) -> tuple[str, Form]:
    for name, form in FORMS.items():
        if all(field in record.fields for field in form.fields):
            return name, form
    known = ["+".join(form.fields) for form in FORMS.values()]
    raise _Wrong(
        f"none of the known forms ({', '.join(known)}); its fields: {', '.join(record.fields)}",
        "name the columns in data.text_column_name (the prompt) and data.label_column_name "
        "(the answer)",
    )


def _named_form(text: str | int | None, label: str | int | None) -> tuple[str, Form] | None:
    if text is None and label is None:
        return None
    if text is None:
        raise BadInput(
            Problem(
                "data.label_column_name",
                f"{label!r} is the column of the answers, but none is named for the prompts",
                "give data.text_column_name too",
            )
        )
    prompt, answer = str(text), None if label is None else str(label)

    def read(fields: Fields) -> list[dict[str, Any]]:
        if answer is None:
            return _plain_text({"text": _text(fields, prompt)})
        user = {"role": "user", "content": _text(fields, prompt)}
        return [_chat([user, _answer(_text(fields, answer), answer)], {}, "instruction")]

    return f"{prompt}+{answer}", Form((), read)


# -- the forms ----------------------------------------------------------------------------------


def _plain_text(fields: Fields) -> list[dict[str, Any]]:
    text = _text(fields, "text")
    if not text.strip():
        raise _Wrong("an empty text", "write something or delete it")
    return [{"text": text}]


def _openai(fields: Fields) -> list[dict[str, Any]]:
    return [_chat(_answered(_messages(fields["messages"], "messages"), "messages"), fields)]


def _sharegpt(fields: Fields) -> list[dict[str, Any]]:
    messages = _messages(fields["conversations"], "conversations")
    if isinstance(fields.get("system"), str) and messages[:1] and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": fields["system"]})
    return [_chat(_answered(messages, "conversations"), fields)]


def _prompt_completion(fields: Fields) -> list[dict[str, Any]]:
    prompt, completion = fields["prompt"], fields["completion"]
    if isinstance(prompt, list) != isinstance(completion, list):
        raise _Wrong("one of prompt and completion is a list, the other is not", "write both alike")
    if not isinstance(prompt, list):
        user = {"role": "user", "content": _text(fields, "prompt")}
        answer = _answer(_text(fields, "completion"), "completion")
        return [_chat([user, answer], {}, "prompt")]
    before = _messages(prompt, "prompt")
    answers = _answered(_messages(completion, "completion"), "completion")
    return [_chat(before + answers, fields) | {"first_answer": len(before)}]


def _alpaca(fields: Fields) -> list[dict[str, Any]]:
    return [_instruction(fields)]


def _instances(fields: Fields) -> list[dict[str, Any]]:
    """Self-Instruct: several inputs and outputs of one instruction."""
    instances = fields["instances"]
    if not isinstance(instances, list) or not all(isinstance(each, dict) for each in instances):
        raise _Wrong("`instances` is no list of objects", 'write [{"input": "", "output": "..."}]')
    return [_instruction({**fields, **each}) for each in instances]


def _instruction(fields: Fields) -> dict[str, Any]:
    """output None: there is none yet."""
    messages: list[Message] = []
    if fields.get("system"):
        messages.append({"role": "system", "content": _text(fields, "system")})
    history = fields.get("history") or []
    for turn in history if isinstance(history, list) else [history]:
        if not isinstance(turn, list) or [type(text) for text in turn] != [str, str]:
            raise _Wrong("`history` is no list of pairs of strings", 'write [["...", "..."]]')
        messages += [{"role": "user", "content": turn[0]}, _answer(turn[1], "history")]
    more = _text(fields, "input") if fields.get("input") else ""
    text = "\n\n".join(part for part in (_text(fields, "instruction"), more) if part)
    messages.append({"role": "user", "content": text})
    if fields.get("output", "") is not None:
        messages.append(_answer(_text(fields, "output"), "output"))
    return _chat(messages, {}, "instruction")


FORMS: dict[str, Form] = {
    "messages": Form(("messages",), _openai),
    "ShareGPT": Form(("conversations",), _sharegpt),
    "Self-Instruct": Form(("instruction", "instances"), _instances),
    "Alpaca": Form(("instruction", "output"), _alpaca),
    "prompt and completion": Form(("prompt", "completion"), _prompt_completion),
    "text": Form(("text",), _plain_text),
}
# What a record of some form may have beside the fields that tell the form.
FURTHER_FIELDS = ("system", "tools", "input", "history")


# -- their parts --------------------------------------------------------------------------------


def _chat(messages: list[Message], fields: Fields, form: str = "messages") -> dict[str, Any]:
    chat: dict[str, Any] = {"messages": messages, "form": form}
    if fields.get("tools"):
        chat["tools"] = _tools(fields["tools"])
    return chat


def _decoded(value: Any, name: str, mend: str) -> Any:
    """What a JSON text spells, once; another value as it is."""
    if not isinstance(value, str):
        return value
    try:
        return parse(value, mend)
    except NoJson as error:
        raise _Wrong(f"{name}: {error.what}", error.mend) from None


def _tools(value: Any) -> Any:
    """Templates want schemas, not their JSON texts."""
    tools = _decoded(value, "`tools`", "write a list of schemas")
    if not isinstance(tools, list):
        return tools
    return [
        _decoded(tool, f"schema {at} of `tools`", "write an object")
        for at, tool in enumerate(tools, 1)
    ]


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


def _messages(value: Any, name: str) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise _Wrong(f"`{name}` is no list of messages", 'write [{"role": "user", "content": ""}]')
    return [_message(message, f"message {at} of `{name}`") for at, message in enumerate(value, 1)]


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, dict):
        raise _Wrong(f"{where} is no object", 'write {"role": "user", "content": "..."}')
    role = value.get("role") or value.get("from")
    if role is None:
        keys = ", ".join(value)
        raise _Wrong(f"{where} has no role (keys: {keys})", 'give it "role" (or "from")')
    if not isinstance(role, str) or role not in ROLES:
        mend = did_you_mean(str(role), list(ROLES)) or f"there are {', '.join(ROLES)}"
        raise _Wrong(f"{where} has the unknown role {role!r}", mend)
    content = value.get("content", value.get("value"))
    read = ("role", "from", "content", "value", *LEARNT, *MASKED)
    message = {key: value[key] for key in value if key not in read}
    message = {"role": ROLES[role], **message, **_weight(value, where)}
    if message.get("tool_calls"):
        message["tool_calls"] = _tool_calls(message["tool_calls"], where)
    if message.get("function_call"):
        message["function_call"] = _call(message["function_call"], where)
    calls = value.get("tool_calls") or value.get("function_call")
    if content is None and calls:
        return message
    if not isinstance(content, str):
        raise _Wrong(
            f"the content of {where} is {type(content).__name__}, not a string",
            'write its text under "content" (or "value")',
        )
    if ROLES[role] == ASSISTANT and not content.strip() and not calls:
        raise _Wrong(f"{where}, the assistant's, is empty", "write an answer or delete it")
    return message | {"content": content}


def _weight(message: Fields, where: str) -> Message:
    """Whether it is learnt, as OpenAI writes it; {} where nothing tells."""
    told = {key: message[key] for key in (*LEARNT, *MASKED) if message.get(key) is not None}
    for key, value in told.items():
        # 1 is "learnt" in many a mask, and "masked" in others.
        if not isinstance(value, bool) and (key in MASKED or value not in (0, 1)):
            raise _Wrong(
                f"`{key}` of {where} is {value!r}, which does not tell whether it is learnt",
                'write "weight": 0 (not learnt) or 1, or name the key otherwise',
            )
    weights = {int(bool(value) != (key in MASKED)) for key, value in told.items()}
    if len(weights) > 1:
        raise _Wrong(f"{', '.join(told)} of {where} contradict each other", "keep one of them")
    return {"weight": weights.pop()} if weights else {}


def _answered(messages: list[Message], name: str) -> list[Message]:
    if not any(message["role"] == ASSISTANT for message in messages):
        raise _Wrong(f"no assistant's message in `{name}`", "nothing could be learnt from it")
    return messages


def _answer(text: str, name: str) -> Message:
    if not text.strip():
        raise _Wrong(f"`{name}`, the assistant's answer, is empty", "write one, or delete it")
    return {"role": ASSISTANT, "content": text}


def _text(fields: Fields, name: str) -> str:
    if name not in fields:
        mend = did_you_mean(name, list(fields)) or f"its fields: {', '.join(fields)}"
        raise _Wrong(f"no field {name!r}", mend)
    if not isinstance(fields[name], str):
        kind = type(fields[name]).__name__
        raise _Wrong(f"`{name}` is {kind}, not a string", "write it as a string")
    return str(fields[name])
