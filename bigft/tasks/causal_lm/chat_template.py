"""Conversations as text, and which characters of it are answers: by the template alone.

The text up to an answer, with the template's generation prompt, is a prefix of the text with the
answer: what comes after it is what the model has to write.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from functools import cached_property
from itertools import takewhile
from operator import eq
from typing import TYPE_CHECKING, Any, NamedTuple

from bigft.config.errors import BadInput, Problem
from bigft.tasks.causal_lm.template_source import CLOCK, DIRECTIVES, PLAIN, STILL_CLOCK
from bigft.tasks.causal_lm.turns import ASSISTANT, Fields, Message, is_learnt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Rendered(NamedTuple):
    """answers: (start, end) of characters of `text`, ascending: what is to be learnt.

    prompt: how many characters stand before the conversation's last answer; 0: it is not in here.
    is_empty: whether no answer in it holds anything that its message says.
    notes: what the template leaves out or does not write: see Row.notes.
    """

    text: str
    answers: tuple[tuple[int, int], ...]
    prompt: int = 0
    notes: tuple[str, ...] = ()
    is_empty: bool = False


class Renderer:
    """Conversations of one tokenizer as text."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, clock: date | None = None) -> None:
        """clock: the day that a template takes for today, from its beginning on; None: the
        present."""
        self._tokenizer = tokenizer
        self._still = clock and {
            "clock_directives": {each: clock.strftime(each) for each in DIRECTIVES}
        }
        self.has_template = bool(tokenizer.chat_template)
        self._is_read: dict[str, bool] = {}  # by key of a message
        self.bos = leading_bos(tokenizer)

    @cached_property
    def turn_end_ids(self) -> set[int]:
        """The mark with which the template ends an answer, where that is a token of its own."""
        talk = [{"role": "user", "content": "a"}, {"role": ASSISTANT, "content": "b"}]
        try:
            text, start, end, _ = self._answer({"messages": talk, "form": "prompt"}, 1, "")
        except BadInput:
            return set()  # a template for other conversations: eos it is
        ids = self._tokenizer(text[start:end], add_special_tokens=False)["input_ids"]
        ends = set(ids[-1:]) & set(self._tokenizer.added_tokens_decoder)
        if not text[start:end].rstrip().endswith(str(self._tokenizer.unk_token)):
            ends -= {self._tokenizer.unk_token_id}  # it stands for "b"
        return ends

    @cached_property
    def _stops(self) -> tuple[str, ...]:
        """Tokens that may end a text. Of added ones that are not special, as those around tool
        calls, only the one that ends an answer."""
        added = self._tokenizer.added_tokens_decoder.items()
        ends = [str(token) for id_, token in added if token.special or id_ in self.turn_end_ids]
        return (str(self._tokenizer.eos_token), *ends)

    @cached_property
    def _borders(self) -> set[str]:
        """What begins a text, and what ends a text or a turn."""
        ends = self._tokenizer.convert_ids_to_tokens(sorted(self.turn_end_ids))
        return {str(self._tokenizer.eos_token), *ends, *([self.bos] if self.bos else [])}

    def prompt(self, fields: Fields, where: str) -> str:
        """The text that an answer to the last message follows."""
        return self._render(fields, fields["messages"], where, prompt=True)

    def whole(self, fields: Fields, where: str, with_prompt: bool) -> Rendered:
        """The conversation in one text, all of it to be learnt but for answers marked otherwise.

        with_prompt: find the last answer in it, too.
        """
        messages: Sequence[Message] = fields["messages"]
        text = self._render(fields, messages, where)
        edges = [0]
        for turn, message in enumerate(messages):
            if message["role"] == ASSISTANT and not is_learnt(message):
                upto, start, end, _ = self._answer(fields, turn, where)
                if not text.startswith(upto[:end]):
                    what = (
                        f"the chat template writes message {turn + 1} otherwise once another "
                        "follows: which tokens are not to be learnt cannot be told"
                    )
                    raise BadInput(Problem(where, what, "set task.assistant_only_loss to true"))
                edges += [start, end]
        edges.append(len(text))
        answers = tuple(zip(edges[::2], edges[1::2], strict=True))
        turns = [turn for turn, message in enumerate(messages) if is_learnt(message)]
        is_empty = bool(turns) and self._is_empty(fields, messages, turns, text, where)
        prompt = self.answers(fields, where, last_only=True)[0].prompt if with_prompt else 0
        notes = self._notes(fields, range(len(messages)), text, where)
        notes += _unread(self._reads(fields, range(len(messages)), text, where))
        return Rendered(text, answers, prompt, notes, is_empty)

    def answers(self, fields: Fields, where: str, last_only: bool) -> list[Rendered]:
        """The texts that teach the answers of a conversation: one, where the template lets it.

        A template may write earlier turns otherwise once another follows (without their thoughts,
        say). Such an answer gets a text of its own, which ends with it: what the model sees when
        it is to write it. Not learnt are an answer to nothing, at the very beginning, and one that
        is marked so.

        where: the sample, for messages.  last_only: the conversation's last answer alone.
        Raises BadInput if the template fails, or if it changes what stands before an answer.
        """
        messages: Sequence[Message] = fields["messages"]
        first = max(1, fields.get("first_answer", 0))
        turns = [
            turn for turn, message in enumerate(messages) if is_learnt(message) and turn >= first
        ]
        if not turns:
            raise BadInput(_nothing_to_learn(messages[first:], where))
        found: list[Rendered] = []  # the latest first
        is_read: dict[str, bool] = {}  # in any of them
        for turn in reversed(turns[-1:] if last_only else turns):
            text, start, end, opened = self._answer(fields, turn, where)
            before = [] if found else range(turn)  # the latest text shows all that is asked
            asked = [at for at in before if messages[at]["role"] != ASSISTANT]
            notes = self._notes(fields, [*asked, turn], text[:end], where)
            for key, read in self._reads(fields, [*asked, turn], text[:end], where).items():
                is_read[key] = read or is_read.get(key, False)
            if opened:
                notes += (
                    f"have an answer that does not begin with all of {opened!r}, the generation "
                    "prompt: what is generated from is not what is learnt",
                )
            is_empty = self._is_empty(
                fields, messages[: turn + 1], [turn], text[:end], where, text[start:end]
            )
            if found and found[-1].text.startswith(text[:end]):
                later = found[-1]
                answers, notes = ((start, end), *later.answers), (*notes, *later.notes)
                is_empty = is_empty and later.is_empty
                found[-1] = later._replace(answers=answers, notes=notes, is_empty=is_empty)
            else:
                prompt = 0 if found else start
                found.append(Rendered(text, ((start, end),), prompt, notes, is_empty))
        found[0] = found[0]._replace(notes=(*found[0].notes, *_unread(is_read)))
        return found[::-1]

    def _answer(self, fields: Fields, turn: int, where: str) -> tuple[str, int, int, str]:
        """The text up to and with the answer, where the answer begins and ends in it, and the
        generation prompt if not all of it stands there."""
        messages = fields["messages"]
        before = self._render(fields, messages[:turn], where, prompt=True)
        text = self._render(fields, messages[: turn + 1], where)
        opened = ""
        if not text.startswith(before):
            # A generation prompt may open what the answer does not hold (a thought, say).
            history = self._render(fields, messages[:turn], where)
            if not text.startswith(history):
                raise BadInput(
                    Problem(
                        where,
                        f"the chat template changes what stands before message {turn + 1} when it "
                        "writes that message: which tokens are the answer cannot be told",
                        "give another data.chat_template, or set task.assistant_only_loss to false",
                    )
                )
            same = sum(takewhile(bool, map(eq, text, before)))
            before, opened = before[:same], before.removeprefix(history)
        # White space behind an end-of-turn mark is the template's; without a mark it is the end.
        body, content = text.rstrip(), messages[turn].get("content", "").rstrip()
        marked = content.endswith(str(self._tokenizer.eos_token))
        end = len(text) if content and body.endswith(content) and not marked else len(body)
        return text, len(before), end, opened

    def _notes(
        self, fields: Fields, turns: Sequence[int], text: str, where: str
    ) -> tuple[str, ...]:
        """What the text, which ends with the last of the turns, does not hold of them."""
        messages = fields["messages"][: turns[-1] + 1]
        notes = []
        for turn in turns:
            role, content = messages[turn]["role"], messages[turn].get("content") or ""
            if not _shows(text, content.removeprefix(self.bos)):
                notes.append(f"lose text of the {role} to the chat template")
            if self.has_template and any(mark in content for mark in self._borders):
                notes.append(
                    f"hold in the text of the {role} what begins or ends a text or a turn: is it "
                    "rendered already?"
                )
        asks = len(turns) > 1  # once a conversation is enough
        no_tools = {**fields, "tools": None}
        if asks and fields.get("tools") and self._is_same(text, no_tools, messages, where):
            notes.append("hold 'tools', which the chat template does not read")
        if messages[-1]["role"] == ASSISTANT and not text.rstrip().endswith(self._stops):
            notes.append(
                "end an answer with no stop token, so that the model does not learn to stop: let "
                f"data.chat_template write {self._tokenizer.eos_token} after an answer"
            )
        return tuple(notes)

    def _reads(
        self, fields: Fields, turns: Sequence[int], text: str, where: str
    ) -> dict[str, bool]:
        """Whether the text, which ends with the last of the turns, has anything of their keys."""
        messages = fields["messages"][: turns[-1] + 1]
        found = {}
        for key in dict.fromkeys(key for turn in turns for key in _further(messages[turn])):
            # A template that names a key may read it here and not there; one that does not, reads
            # it never, or always (all keys of a message, say): to look once is enough.
            is_named = key in str(self._tokenizer.chat_template)
            if is_named or key not in self._is_read:
                without = [
                    {name: each[name] for name in each if name != key} if turn in turns else each
                    for turn, each in enumerate(messages)
                ]
                self._is_read[key] = not self._is_same(text, fields, without, where)
            found[key] = self._is_read[key]
        return found

    def _is_empty(
        self,
        fields: Fields,
        messages: Sequence[Message],
        turns: Sequence[int],
        text: str,
        where: str,
        learnt: str = "",
    ) -> bool:
        """Whether these turns, of answers, could as well say nothing: the text were the same.

        learnt: what of the text is theirs; all of it where it is not given.
        """
        said = [messages[turn].get("content", "").strip() for turn in turns]
        if any(each and each in (learnt or text) for each in said):
            return False
        blank = [
            {"role": ASSISTANT, "content": ""} if turn in turns else message
            for turn, message in enumerate(messages)
        ]
        return self._is_same(text, fields, blank, where)

    def _is_same(self, text: str, fields: Fields, messages: Sequence[Message], where: str) -> bool:
        try:
            return self._render(fields, messages, where).startswith(text)
        except BadInput:
            return False  # it is read

    def _render(
        self, fields: Fields, messages: Sequence[Message], where: str, prompt: bool = False
    ) -> str:
        extra: dict[str, Any] = {}
        messages = [
            {key: each[key] for key in each if key != "weight"} if "weight" in each else each
            for each in messages
        ]
        if not self.has_template:
            if fields["form"] not in PLAIN:
                raise BadInput(
                    Problem(
                        "data.chat_template",
                        "the tokenizer has no chat template, and the data holds conversations "
                        "(messages, ShareGPT)",
                        "name a Jinja file, or a model whose tokenizer has a template",
                    )
                )
            extra = {"chat_template": PLAIN[fields["form"]], "bos_token": self.bos}
        try:
            if self.has_template and self._still:
                template = self._tokenizer.get_chat_template(tools=fields.get("tools"))
                if CLOCK in template:
                    extra = {"chat_template": STILL_CLOCK + template, **self._still}
            return str(
                self._tokenizer.apply_chat_template(
                    messages,
                    tools=fields.get("tools"),
                    tokenize=False,
                    add_generation_prompt=prompt,
                    **extra,
                )
            )
        except Exception as error:  # a template is a program: it may fail in every way
            kind = type(error).__name__
            raise BadInput(
                Problem(
                    where,
                    f"the chat template refuses it ({kind}: {' '.join(str(error).split())})",
                    "fix the sample, or give another data.chat_template",
                )
            ) from error


def _nothing_to_learn(messages: Sequence[Message], where: str) -> Problem:
    if any(message["role"] == ASSISTANT for message in messages):
        what = "every answer in the conversation is marked as not to be learnt"
        return Problem(where, what, "delete it, or mark one as to be learnt")
    what = "no answer to a message in the conversation: nothing to learn"
    return Problem(where, what, "put a user's message before the answer")


def _further(message: Message) -> list[str]:
    """Its keys beside role and text that say something. Which call a tool's result belongs to is
    told by the order, too."""
    links = ("name", "tool_call_id") if message["role"] == "tool" else ()
    known = ("role", "content", "weight", *links)
    return [key for key in message if key not in known and message[key] not in (None, "", [], {})]


def _unread(is_read: Mapping[str, bool]) -> tuple[str, ...]:
    keys = sorted(key for key, read in is_read.items() if not read)
    if not keys:
        return ()
    named = ", ".join(map(repr, keys))
    return (f"hold {named} in their turns, which neither bigft nor the chat template reads",)


def _shows(text: str, part: str) -> bool:
    """Whether the part stands in the text; its white space may differ, and it may be JSON there."""
    if part.strip() in text:
        return True
    quoted = json.dumps(part, ensure_ascii=False)[1:-1]
    text, part, quoted = ("".join(each.split()) for each in (text, part, quoted))
    return part in text or quoted in text


def leading_bos(tokenizer: PreTrainedTokenizerBase) -> str:
    """The token that the tokenizer puts before a text: its bos_token, or nothing."""
    begins = tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
    return str(tokenizer.bos_token) if begins else ""
