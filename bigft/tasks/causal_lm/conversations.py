"""One form for every way to write what a language model learns from.

A record becomes {"text"}, or {"messages", "form", "first_answer", "tools"}: `messages` as OpenAI
writes them (`weight: 0` is an answer that is not learnt), `first_answer` the message from which on
answers may be targets. Notes tell what is not done with a record that its author may have meant.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from bigft.config.errors import BadInput, Problem
from bigft.config.sections import OnBadRecord
from bigft.data.formats.base import did_you_mean
from bigft.data.records import Record
from bigft.tasks.causal_lm.turns import (
    ASSISTANT,
    LEARNT,
    MASKED,
    SYSTEM,
    Fields,
    Message,
    Wrong,
    is_learnt,
    messages_of,
    tools_of,
)
from bigft.tasks.usable import usable


class Form(NamedTuple):
    """fields: those that tell the form.  read: the fields' normalised ones; several of a record
    that holds several samples."""

    fields: tuple[str, ...]
    read: Callable[[Fields], list[dict[str, Any]]]


def columns(text: str | int | None, label: str | int | None) -> frozenset[str]:
    """The fields that `normalised` may take, given the names that the config gives."""
    named = frozenset(str(name) for name in (text, label) if name is not None)
    further = (*FURTHER_FIELDS, *UNREAD)
    return named or frozenset(further).union(*(form.fields for form in FORMS.values()))


def normalised(
    records: Iterable[Record],
    *,
    text_column_name: str | int | None,
    label_column_name: str | int | None,
    split: str = "train",
    on_bad_record: OnBadRecord = "refuse",
    notes: list[str] | None = None,
) -> Iterator[Record]:
    """The records in the one form, numbered anew: see `usable`.

    text_column_name, label_column_name: columns of prompt and answer; the first alone: of plain
        text. None: the form is found by the fields, for each file by its first record.
    Refused are records of an unknown form or another one than their file's, without an answer, with
    a role that is none.
    """
    named = _named_form(text_column_name, label_column_name)
    forms: dict[str, tuple[str, Record]] = {}  # by file: its form, and where it was seen first

    def samples(record: Record) -> Iterator[Record]:
        try:
            name, form = named or _found_form(record)
            known, first = forms.setdefault(record.file, (name, record))
            if name != known:
                raise Wrong(
                    f"the form {name} (fields: {', '.join(record.fields)}) in a file that "
                    f"began as {known} at line {first.line}",
                    "put one form in a file",
                )
            found = form.read(record.fields)
        except Wrong as error:
            raise BadInput(Problem(record.where, *error.args)) from None
        for fields in found:
            yield replace(
                record, fields=fields, notes=(*record.notes, *_notes(record.fields, fields))
            )

    return usable(records, samples, split, on_bad_record, notes)


def prompt_record(record: Record) -> Record:
    """A record without an answer in the same form: `messages`, `prompt`, `instruction` or `text`.

    Answers at the end of `messages` are cut off. Raises BadInput, naming file and line.
    """
    fields = record.fields
    try:
        if "messages" in fields or "conversations" in fields:
            name = "messages" if "messages" in fields else "conversations"
            messages = _with_system(messages_of(fields[name], name), fields)
            while messages and messages[-1]["role"] == ASSISTANT:
                messages.pop()
            if not messages or messages[-1]["role"] in SYSTEM:
                raise Wrong(f"no message to answer in {name!r}", "end it with a user's message")
            return replace(record, fields=_chat(messages, fields))
        if "instruction" in fields:
            return replace(record, fields=_instruction({**fields, "output": None}))
        for name in ("prompt", "text"):
            if isinstance(fields.get(name), list):
                messages = _with_system(messages_of(fields[name], name), fields)
                return replace(record, fields=_chat(messages, fields))
            if name in fields:
                messages = _with_system([_user(_text(fields, name))], fields)
                return replace(record, fields=_chat(messages, {}, "prompt"))
        raise Wrong(
            f"no prompt in the object (fields: {', '.join(fields)})",
            'write {"text": "..."}, {"prompt": ...}, {"messages": [...]} or {"instruction": "..."}',
        )
    except Wrong as error:
        raise BadInput(Problem(record.where, *error.args)) from None


def last_prompt(fields: Fields) -> str:
    """The message before the last answer that may be learnt; "" if there is none."""
    messages = fields["messages"]
    last = max((at for at, message in enumerate(messages) if is_learnt(message)), default=0)
    return str(messages[last - 1].get("content", "")) if last else ""


# Of which names are made that mark what is learnt, in one spelling or another.
MARKS = {"weight", "train", "trainable", "loss", "mask", "masked", "learn", "learnable", "learnt"}


# -- which form ---------------------------------------------------------------------------------


def _found_form(record: Record) -> tuple[str, Form]:
    for name, form in FORMS.items():
        if all(field in record.fields for field in form.fields):
            return name, form
    known = ["+".join(form.fields) for form in FORMS.values()]
    raise Wrong(
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
        user = _user(_text(fields, prompt))
        return [_chat([user, _answer(_text(fields, answer), answer)], {}, "instruction")]

    return f"{prompt}+{answer}", Form((), read)


# -- the forms ----------------------------------------------------------------------------------


def _plain_text(fields: Fields) -> list[dict[str, Any]]:
    text = _text(fields, "text")
    if not text.strip():
        raise Wrong("an empty text", "write something or delete it")
    return [{"text": text}]


def _openai(fields: Fields) -> list[dict[str, Any]]:
    return [_conversation(fields, "messages")]


def _sharegpt(fields: Fields) -> list[dict[str, Any]]:
    return [_conversation(fields, "conversations")]


def _prompt_completion(fields: Fields) -> list[dict[str, Any]]:
    prompt, completion = fields["prompt"], fields["completion"]
    if isinstance(prompt, list) != isinstance(completion, list):
        raise Wrong("one of prompt and completion is a list, the other is not", "write both alike")
    if not isinstance(prompt, list):
        answer = _answer(_text(fields, "completion"), "completion")
        messages = _with_system([_user(_text(fields, "prompt")), answer], fields)
        return [_chat(messages, {}, "prompt")]
    before = _with_system(messages_of(prompt, "prompt"), fields)
    answers = _answered(messages_of(completion, "completion"), "completion")
    return [_chat(before + answers, fields) | {"first_answer": len(before)}]


def _alpaca(fields: Fields) -> list[dict[str, Any]]:
    return [_instruction(fields)]


def _instances(fields: Fields) -> list[dict[str, Any]]:
    """Self-Instruct: several inputs and outputs of one instruction."""
    instances = fields["instances"]
    if not isinstance(instances, list) or not all(isinstance(each, dict) for each in instances):
        raise Wrong("`instances` is no list of objects", 'write [{"input": "", "output": "..."}]')
    return [_instruction({**fields, **each}) for each in instances]


def _instruction(fields: Fields) -> dict[str, Any]:
    """output None: there is none yet."""
    messages: list[Message] = []
    if fields.get("system"):
        messages.append({"role": "system", "content": _text(fields, "system")})
    history = fields.get("history") or []
    for turn in history if isinstance(history, list) else [history]:
        if not isinstance(turn, list) or [type(text) for text in turn] != [str, str]:
            raise Wrong("`history` is no list of pairs of strings", 'write [["...", "..."]]')
        messages += [_user(turn[0]), _answer(turn[1], "history")]
    more = _text(fields, "input") if fields.get("input") else ""
    text = "\n\n".join(part for part in (_text(fields, "instruction"), more) if part)
    messages.append(_user(text))
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
# What other tools read of such a record, and this one does not.
UNREAD = ("system_prompt", "functions", "chat_template_kwargs")


# -- their parts --------------------------------------------------------------------------------


def _chat(messages: list[Message], fields: Fields, form: str = "messages") -> dict[str, Any]:
    chat: dict[str, Any] = {"messages": messages, "form": form}
    if fields.get("tools"):
        chat["tools"] = tools_of(fields["tools"])
    return chat


def _conversation(fields: Fields, name: str) -> dict[str, Any]:
    return _chat(_with_system(_answered(messages_of(fields[name], name), name), fields), fields)


def _with_system(messages: list[Message], fields: Fields) -> list[Message]:
    """Before them what their field `system` says, unless a system turn begins them: LLaMA-Factory
    lets that count, too."""
    if not fields.get("system") or messages[0]["role"] in SYSTEM:
        return messages
    return [{"role": "system", "content": _text(fields, "system")}, *messages]


def _answered(messages: list[Message], name: str) -> list[Message]:
    if not any(message["role"] == ASSISTANT for message in messages):
        raise Wrong(f"no assistant's message in `{name}`", "nothing could be learnt from it")
    return messages


def _user(text: str) -> Message:
    return {"role": "user", "content": text}


def _answer(text: str, name: str) -> Message:
    if not text.strip():
        raise Wrong(f"`{name}`, the assistant's answer, is empty", "write one, or delete it")
    return {"role": ASSISTANT, "content": text}


def _text(fields: Fields, name: str) -> str:
    if name not in fields:
        fix = did_you_mean(name, list(fields)) or f"its fields: {', '.join(fields)}"
        raise Wrong(f"no field {name!r}", fix)
    if not isinstance(fields[name], str):
        kind = type(fields[name]).__name__
        raise Wrong(f"`{name}` is {kind}, not a string", "write it as a string")
    return str(fields[name])


# -- what is not done with a record -------------------------------------------------------------


def _notes(given: Fields, sample: Fields) -> list[str]:
    """given: the record that the sample is made of."""
    messages = sample.get("messages", ())
    notes = [
        f"hold a field {name!r}, which is not read: mark the messages themselves"
        for name, value in given.items()
        if _marks(name, value, messages)
    ]
    notes += [f"hold a field {name!r}, which is not read" for name in UNREAD if given.get(name)]
    if isinstance(given.get("label"), bool) and messages:
        notes += ["hold a field 'label' that is true or false, which is not read: what is false is "
                  "learnt too"]  # fmt: skip
    first = messages[0] if messages else {}
    if first.get("role") in SYSTEM and given.get("system") not in (None, "", first["content"]):
        notes += ["hold a field 'system', which is not read: a turn of the system says otherwise"]
    asked = [m["role"] for m in messages if m["role"] != ASSISTANT and m.get("weight") == 1]
    notes += [
        f"mark a turn of the {role} as one to learn: only answers are"
        for role in dict.fromkeys(asked)
    ]
    if messages and messages[-1]["role"] != ASSISTANT:
        notes.append(f"end with a turn of the {messages[-1]['role']}, which no answer follows")
    return notes


def _marks(name: str, value: Any, messages: Sequence[Message]) -> bool:
    """Whether a field beside the messages may tell which of them are learnt: by its name, or as a
    list with a 0 or a 1 for each."""
    if name in (*LEARNT, *MASKED):
        return value is not None
    told = [each for each in (value if isinstance(value, list) else [value]) if each is not None]
    if not told or not all(isinstance(each, bool | int | float) for each in told):
        return False
    is_named = any({word, word.removesuffix("s")} & MARKS for word in name.lower().split("_"))
    if is_named and isinstance(value, list):
        return True
    of_turns = [m for m in messages if m["role"] not in SYSTEM]
    of_answers = [m for m in messages if m["role"] == ASSISTANT]
    counts = {len(messages), len(of_turns), len(of_answers)}
    is_parallel = isinstance(value, list) and len(messages) > 0 and len(value) in counts
    return (is_named or is_parallel) and all(each in (0, 1) for each in told)
