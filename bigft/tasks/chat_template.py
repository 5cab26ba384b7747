"""Conversations as text, and which characters of it are answers: by the template alone.

The text up to an answer, with the template's generation prompt, is a prefix of the text with the
answer: what comes after it is what the model has to write.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from functools import cached_property
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigft.config.errors import BadInput, Problem
from bigft.tasks.conversations import ASSISTANT, Fields, Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# What serves where the tokenizer has no template, by the form of the data. bos_token is empty
# where the tokenizer puts none before a text.
PLAIN = {
    "prompt": (
        "{{ bos_token }}{% for message in messages %}{{ message['content'] }}"
        "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    ),
    "instruction": (
        "{{ bos_token }}{% for message in messages %}"
        "{% if message['role'] == 'assistant' %}{{ message['content'] }}{{ eos_token }}\n\n"
        "{% elif message['role'] == 'user' %}"
        "### Instruction:\n{{ message['content'] }}\n\n### Response:\n"
        "{% else %}{{ message['content'] }}\n\n{% endif %}{% endfor %}"
    ),
}


CLOCK = "strftime_now"  # what transformers calls the clock that it gives to templates
# Put before a template, a clock that stands still. Jinja drops the line end behind a block: the
# template begins a line of its own.
STILL_CLOCK = (
    f"{{% macro {CLOCK}(format) %}}{{% set ns = namespace(text=format) %}}"
    "{% for directive, value in clock_directives.items() %}"
    "{% set ns.text = ns.text.replace(directive, value) %}{% endfor %}"
    "{{ ns.text }}{% endmacro %}\n"
)
DIRECTIVES = [
    *(f"%{flag}{letter}" for flag in ("", "-") for letter in "aAbBcdeFHIjmMpRSTuUVwWxXyYZ"),
    "%%",
]


@dataclass(frozen=True, slots=True)
class Rendered:
    """answers: (start, end) of characters of `text`, ascending: what is to be learnt.

    prompt: how many characters stand before the conversation's last answer; 0: it is not in here.
    """

    text: str
    answers: tuple[tuple[int, int], ...]
    prompt: int = 0


def use_template(tokenizer: PreTrainedTokenizerBase, file: str | None) -> None:
    """Puts the Jinja file in the place of the tokenizer's own template; it is saved with it.

    Raises BadInput if it cannot be read or is no Jinja. None changes nothing.
    """
    from jinja2 import TemplateSyntaxError

    if file is None:
        return
    try:
        tokenizer.chat_template = Path(file).read_text(encoding="utf-8")
        tokenizer.apply_chat_template([{"role": "user", "content": "-"}], tokenize=False)
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise BadInput(
            Problem("data.chat_template", f"{file} cannot be read ({reason})", "name a Jinja file")
        ) from error
    except TemplateSyntaxError as error:
        problem = Problem(f"{file}:{error.lineno}", f"no Jinja ({error.message})", "mend it")
        raise BadInput(problem) from error
    except Exception:  # of every kind: it may want another conversation than this one
        pass


def writes_clock(tokenizer: PreTrainedTokenizerBase, file: str | None) -> bool:
    """Whether the template writes the day it is used on.

    file: stands in the place of the tokenizer's own template.
    """
    template = str(tokenizer.chat_template)
    if file is not None and Path(file).is_file():
        template = Path(file).read_text(encoding="utf-8", errors="replace")
    return CLOCK in template


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
        self.bos = leading_bos(tokenizer)

    @cached_property
    def turn_end_ids(self) -> set[int]:
        """The mark with which the template ends an answer, where that is a token of its own."""
        talk = [{"role": "user", "content": "a"}, {"role": ASSISTANT, "content": "b"}]
        try:
            (rendered,) = self.answers({"messages": talk, "form": "prompt"}, "", last_only=True)
        except BadInput:
            return set()  # a template for other conversations: eos it is
        start, end = rendered.answers[-1]
        ids = self._tokenizer(rendered.text[start:end], add_special_tokens=False)["input_ids"]
        return set(ids[-1:]) & set(self._tokenizer.added_tokens_decoder)

    def prompt(self, fields: Fields, where: str) -> str:
        """The text that an answer to the last message follows."""
        return self._render(fields, fields["messages"], where, prompt=True)

    def whole(self, fields: Fields, where: str, with_prompt: bool) -> Rendered:
        """The conversation in one text, all of it to be learnt.

        with_prompt: find the last answer in it, too.
        """
        text = self._render(fields, fields["messages"], where)
        prompt = self.answers(fields, where, last_only=True)[0].prompt if with_prompt else 0
        return Rendered(text, ((0, len(text)),), prompt)

    def answers(self, fields: Fields, where: str, last_only: bool) -> list[Rendered]:
        """The texts that teach the answers of a conversation: one, where the template lets it.

        A template may write earlier turns otherwise once another follows (without their thoughts,
        say). Such an answer gets a text of its own, which ends with it: what the model sees when
        it is to write it. An answer to nothing, at the very beginning, is not learnt.

        where: the sample, for messages.  last_only: the conversation's last answer alone.
        Raises BadInput if the template fails, or if it changes what stands before an answer.
        """
        messages: Sequence[Message] = fields["messages"]
        first = max(1, fields.get("first_answer", 0))
        turns = [
            turn
            for turn, message in enumerate(messages)
            if message["role"] == ASSISTANT and turn >= first
        ]
        if not turns:
            problem = "no answer to a message in the conversation: nothing to learn"
            raise BadInput(Problem(where, problem, "put a user's message before the answer"))
        found: list[Rendered] = []  # the latest first
        for turn in reversed(turns[-1:] if last_only else turns):
            text, start, end = self._answer(fields, turn, where)
            if found and found[-1].text.startswith(text[:end]):
                later = found[-1]
                found[-1] = replace(later, answers=((start, end), *later.answers))
            else:
                found.append(Rendered(text, ((start, end),), 0 if found else start))
        return found[::-1]

    def _answer(self, fields: Fields, turn: int, where: str) -> tuple[str, int, int]:
        """The text up to and with the answer, and where the answer begins and ends in it."""
        messages = fields["messages"]
        before = self._render(fields, messages[:turn], where, prompt=True)
        text = self._render(fields, messages[: turn + 1], where)
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
            same = (ours == theirs for ours, theirs in zip(text, before, strict=False))
            before = before[: sum(takewhile(bool, same))]
        # White space behind an end-of-turn mark is the template's; without a mark it is the end.
        body, content = text.rstrip(), messages[turn].get("content", "").rstrip()
        end = len(text) if content and body.endswith(content) else len(body)
        return text, len(before), end

    def _render(
        self, fields: Fields, messages: Sequence[Message], where: str, prompt: bool = False
    ) -> str:
        extra: dict[str, Any] = {}
        if not self.has_template:
            if fields["form"] not in PLAIN:
                raise BadInput(
                    Problem(
                        "data.chat_template",
                        f"the tokenizer has no chat template for the conversation in {where}",
                        "give a Jinja file",
                    )
                )
            extra = {"chat_template": PLAIN[fields["form"]], "bos_token": self.bos}
        try:
            if self.has_template and self._still:
                template = self._tokenizer.get_chat_template(tools=fields.get("tools"))
                extra = {"chat_template": STILL_CLOCK + template, **self._still}
            return str(
                self._tokenizer.apply_chat_template(
                    list(messages),
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
                    "mend the sample, or give another data.chat_template",
                )
            ) from error


def leading_bos(tokenizer: PreTrainedTokenizerBase) -> str:
    """The token that the tokenizer puts before a text: its bos_token, or nothing."""
    begins = tokenizer("a").input_ids[:1] == [tokenizer.bos_token_id]
    return str(tokenizer.bos_token) if begins else ""
