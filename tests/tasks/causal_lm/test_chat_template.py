"""Which characters of a conversation are answers, for templates as real models have them."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest
from tasks.chat import (
    BARE,
    CHATML,
    COUNTING,
    DATED,
    GEMMA,
    LLAMA,
    MISTRAL,
    OPENING,
    THINKING,
    chat_tokenizer,
)
from tokenizers import Tokenizer, models, processors
from transformers import PreTrainedTokenizerFast

from bigft.config.errors import BadInput
from bigft.tasks.causal_lm.chat_template import Renderer
from bigft.tasks.causal_lm.template_source import use_template, writes_clock

WHERE = "train.jsonl:7"
TALK = ["Hi!", "Hello.", "And you?", "Fine "]


def talk(*turns: str, system: str | None = None) -> dict[str, Any]:
    """user, assistant, user, ...; a first "" is an assistant that begins."""
    roles = ["assistant", "user"] if turns[0] == "" else ["user", "assistant"]
    texts = turns[1:] if turns[0] == "" else turns
    messages = [{"role": roles[n % 2], "content": text} for n, text in enumerate(texts)]
    if system is not None:
        messages.insert(0, {"role": "system", "content": system})
    return {"messages": messages, "form": "messages"}


def marked(template: str | None, fields: dict[str, Any], last_only: bool = False) -> list[str]:
    """The texts with [[ ]] around the answers."""
    texts = []
    for rendered in Renderer(chat_tokenizer(template)).answers(fields, WHERE, last_only):
        text = rendered.text
        for start, end in reversed(rendered.answers):
            text = f"{text[:start]}[[{text[start:end]}]]{text[end:]}"
        texts.append(text)
    return texts


def refusal(template: str | None, fields: dict[str, Any]) -> str:
    with pytest.raises(BadInput) as caught:
        Renderer(chat_tokenizer(template)).answers(fields, WHERE, last_only=False)
    return str(caught.value)


def test_chatml_teaches_the_answer_and_its_mark_but_not_the_line_end() -> None:
    assert marked(CHATML, talk(*TALK, system="Be kind.")) == [
        "<|im_start|>system\nBe kind.<|im_end|>\n"
        "<|im_start|>user\nHi!<|im_end|>\n<|im_start|>assistant\n[[Hello.<|im_end|>]]\n"
        "<|im_start|>user\nAnd you?<|im_end|>\n<|im_start|>assistant\n[[Fine <|im_end|>]]\n"
    ]


def test_llama_trims_and_writes_bos_once() -> None:
    assert marked(LLAMA, talk(*TALK)) == [
        "<s><|header|>user<|end_header|>\n\nHi!<|eot|>"
        "<|header|>assistant<|end_header|>\n\n[[Hello.<|eot|>]]"
        "<|header|>user<|end_header|>\n\nAnd you?<|eot|>"
        "<|header|>assistant<|end_header|>\n\n[[Fine<|eot|>]]"
    ]


def test_mistral_has_no_generation_prompt_and_needs_none() -> None:
    assert marked(MISTRAL, talk(*TALK)) == [
        "<s>[INST] Hi! [/INST][[ Hello.</s>]][INST] And you? [/INST][[ Fine </s>]]"
    ]


def test_gemma_calls_the_assistant_model() -> None:
    assert marked(GEMMA, talk(*TALK)) == [
        "<s><turn>user\nHi!<end_of_turn>\n<turn>model\n[[Hello.<end_of_turn>]]\n"
        "<turn>user\nAnd you?<end_of_turn>\n<turn>model\n[[Fine<end_of_turn>]]\n"
    ]


def test_without_a_mark_the_line_end_is_the_end_and_is_learnt() -> None:
    assert marked(BARE, talk("Hi!", "Hello.")) == ["user: Hi!\nassistant:[[ Hello.\n]]"]


def test_an_answer_whose_thoughts_are_dropped_later_has_a_text_of_its_own() -> None:
    turns = ["a", "<think>x</think>b", "c", "<think>y</think>d"]
    first = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"
    assert marked(THINKING, talk(*turns)) == [
        f"{first}[[<think>x</think>b<|im_end|>]]\n",
        f"{first}b<|im_end|>\n<|im_start|>user\nc<|im_end|>\n"
        "<|im_start|>assistant\n[[<think>y</think>d<|im_end|>]]\n",
    ]


def test_answers_without_thoughts_share_a_text_in_the_same_template() -> None:
    (text,) = marked(THINKING, talk(*TALK))
    assert text.count("[[") == 2


def test_what_the_generation_prompt_opens_is_not_learnt_where_the_answer_holds_it() -> None:
    start = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n"
    assert marked(OPENING, talk("a", "<think>\nx</think>b")) == [
        f"{start}<think>\n[[x</think>b<|im_end|>]]\n"
    ]
    assert marked(OPENING, talk("a", "b")) == [f"{start}[[b<|im_end|>]]\n"]


def test_the_last_answer_alone() -> None:
    (text,) = marked(CHATML, talk(*TALK), last_only=True)
    assert text.count("[[") == 1
    assert "[[Fine <|im_end|>]]" in text
    assert "Hello." in text


def test_what_follows_the_last_answer_is_left_out() -> None:
    (text,) = marked(CHATML, talk("a", "b", "c"))
    assert text.endswith("[[b<|im_end|>]]\n")


def test_an_opening_answer_to_nothing_is_read_and_not_learnt() -> None:
    (text,) = marked(CHATML, talk("", "Welcome!", "a", "b"))
    assert text.startswith("<|im_start|>assistant\nWelcome!<|im_end|>\n")
    assert text.count("[[") == 1


def test_only_the_completion_is_learnt_of_prompt_messages() -> None:
    fields = talk(*TALK) | {"first_answer": 3}
    (text,) = marked(CHATML, fields)
    assert text.count("[[") == 1


def test_a_pair_without_a_template_is_prompt_completion_eos() -> None:
    pair = talk("Once", " upon a time") | {"form": "prompt"}
    assert marked(None, pair) == ["<s>Once[[ upon a time</s>]]"]


def test_an_instruction_without_a_template_has_headings() -> None:
    pair = talk("Add.\n\n1 2", "3", system="You add.") | {"form": "instruction"}
    assert marked(None, pair) == [
        "<s>You add.\n\n### Instruction:\nAdd.\n\n1 2\n\n### Response:\n[[3</s>]]\n\n"
    ]


def test_a_tokenizer_that_puts_no_bos_gets_none() -> None:
    tokenizer = chat_tokenizer()
    tokenizer.backend_tokenizer.post_processor = processors.ByteLevel()
    pair = talk("a", "b") | {"form": "prompt"}
    (rendered,) = Renderer(tokenizer).answers(pair, WHERE, last_only=False)
    assert rendered.text == "ab</s>"


def test_all_of_a_conversation() -> None:
    rendered = Renderer(chat_tokenizer(CHATML)).whole(talk(*TALK), WHERE, with_prompt=True)
    assert rendered.answers == ((0, len(rendered.text)),)
    assert rendered.text[rendered.prompt :] == "Fine <|im_end|>\n"


@pytest.mark.parametrize(
    ("template", "mark"),
    [(CHATML, "<|im_end|>"), (GEMMA, "<end_of_turn>"), (MISTRAL, "</s>"), (None, "</s>")],
)
def test_the_mark_that_ends_a_turn_ends_generation(template: str | None, mark: str) -> None:
    tokenizer = chat_tokenizer(template)
    assert Renderer(tokenizer).turn_end_ids == {tokenizer.convert_tokens_to_ids(mark)}


def test_a_word_that_the_tokenizer_does_not_know_ends_no_generation() -> None:
    words = Tokenizer(models.WordLevel({"[UNK]": 0, "user": 1, "hi": 2}, unk_token="[UNK]"))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]", eos_token="hi")
    tokenizer.chat_template = "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}"
    assert Renderer(tokenizer).turn_end_ids == set()


def test_a_line_end_as_the_mark_ends_no_generation() -> None:
    assert Renderer(chat_tokenizer(BARE)).turn_end_ids == set()


def masked(fields: dict[str, Any], *turns: int) -> dict[str, Any]:
    """The same conversation, the turns marked as not to be learnt."""
    messages = [
        message | ({"weight": 0} if turn in turns else {"weight": 1})
        for turn, message in enumerate(fields["messages"])
    ]
    return fields | {"messages": messages}


@pytest.mark.parametrize("template", [CHATML, LLAMA, MISTRAL, GEMMA, THINKING])
def test_a_turn_marked_as_not_to_be_learnt_is_read(template: str) -> None:
    whole, first = marked(template, talk(*TALK)), marked(template, masked(talk(*TALK), 1))
    assert [text.replace("[[", "").replace("]]", "") for text in first] == [
        text.replace("[[", "").replace("]]", "") for text in whole
    ]
    assert [text.count("Hello.") for text in first] == [1]
    assert [text.split("[[")[1].strip().startswith("Fine") for text in first] == [True]


def test_a_template_does_not_see_the_marks() -> None:
    shown = "{% for message in messages %}{{ message | tojson }}<|im_end|>{% endfor %}"
    assert marked(shown, masked(talk("a", "b"))) == marked(shown, talk("a", "b"))


def test_the_last_answer_that_may_be_learnt_alone() -> None:
    (text,) = marked(CHATML, masked(talk(*TALK), 3), last_only=True)
    assert text.endswith("[[Hello.<|im_end|>]]\n")


def test_all_of_a_conversation_but_what_is_marked() -> None:
    fields = masked(talk(*TALK), 1)
    rendered = Renderer(chat_tokenizer(CHATML)).whole(fields, WHERE, with_prompt=True)
    learnt = [rendered.text[start:end] for start, end in rendered.answers]
    assert "Hello.<|im_end|>".join(learnt) == rendered.text
    assert len(learnt) == 2


# -- the clock ----------------------------------------------------------------------------------


def test_a_template_takes_the_day_it_is_given_for_today() -> None:
    renderer = Renderer(chat_tokenizer(DATED), date(2024, 7, 26))
    texts = [
        renderer.prompt(talk("Hi!"), WHERE),
        renderer.whole(talk("Hi!", "Ho."), WHERE, with_prompt=False).text,
        *(rendered.text for rendered in renderer.answers(talk(*TALK), WHERE, last_only=False)),
    ]
    for text in texts:
        assert text.startswith("<|im_start|>system\nToday is 26 Jul 2024.<|im_end|>\n")


def test_the_time_of_a_day_is_that_of_its_beginning() -> None:
    template = DATED.replace("%d %b %Y", "%H:%M:%S")
    text = Renderer(chat_tokenizer(template), date(2024, 7, 26)).prompt(talk("Hi!"), WHERE)
    assert "Today is 00:00:00." in text


@pytest.mark.parametrize(
    "template",
    [
        CHATML,
        DATED,
        "\n  {% if true %}\n\n  {{ messages }}\n  {% endif %}\n x\n",
        "  {%- if strftime_now is defined %}{% set day = '%-d' %}{% for _ in '12' %}"
        "{{ strftime_now(day ~ '. %B %y, %A %j %%') }}{% endfor %}{% endif %}",
        "{% macro now() %}{{ strftime_now(format='%Y-%m-%d') }}{% endmacro %}{{ now() }}",
        "{{ strftime_now('%D %e %C %G %V, 100%%d %%Y') }}",
        {"default": CHATML, "tool_use": "with tools: " + DATED},
    ],
)
@pytest.mark.parametrize("tools", [None, [{"type": "function", "function": {"name": "f"}}]])
def test_on_the_present_day_a_text_is_as_without_a_clock_of_its_own(
    template: Any, tools: Any
) -> None:
    """To the last space."""
    tokenizer, fields = chat_tokenizer(template), talk(*TALK) | {"tools": tools}
    ours, day = set(), date.today()
    while day not in ours:  # midnight may come between
        day = date.today()
        text = Renderer(tokenizer, day).whole(fields, WHERE, with_prompt=False).text
        theirs = Renderer(tokenizer).whole(fields, WHERE, with_prompt=False).text
        ours = {date.today()}
    assert text == theirs


def test_a_template_that_writes_the_clock_is_known(tmp_path: Path) -> None:
    file = tmp_path / "t.jinja"
    for own, given, found in (
        (DATED, None, True),
        (CHATML, None, False),
        (CHATML, DATED, True),
        (DATED, CHATML, False),
        (None, None, False),
        ({"default": CHATML, "tool_use": DATED}, None, True),
    ):
        file.write_text(given or "")
        named = str(file) if given else None
        assert writes_clock(chat_tokenizer(own), named) == found, (own, given)
    assert writes_clock(chat_tokenizer(DATED), str(tmp_path / "none.jinja"))


# -- refused ------------------------------------------------------------------------------------


def test_a_conversation_that_the_template_refuses_is_named() -> None:
    assert refusal(MISTRAL, talk("", "Welcome!", "a", "b")) == (
        "train.jsonl:7: the chat template refuses it (TemplateError: roles must alternate: user, "
        "assistant, ...); fix the sample, or give another data.chat_template"
    )
    assert "no system role" in refusal(GEMMA, talk("a", "b", system="c"))


@pytest.mark.parametrize(
    ("template", "kind"),
    [
        ("{{ missing.content }}", "UndefinedError"),
        ("{{ 'a' + 1 }}", "TypeError"),
        ("{{ messages[0].__class__.__mro__ }}", "SecurityError"),
    ],
)
def test_a_template_that_fails_is_an_error_of_the_sample(template: str, kind: str) -> None:
    error = refusal(template, talk("a", "b"))
    assert error.startswith(f"{WHERE}: the chat template refuses it ({kind}: ")


def test_a_template_that_rewrites_what_stands_before_is_refused() -> None:
    assert refusal(COUNTING, talk("a", "b")) == (
        "train.jsonl:7: the chat template changes what stands before message 2 when it writes that "
        "message: which tokens are the answer cannot be told; give another data.chat_template, or "
        "set task.assistant_only_loss to false"
    )


def test_a_conversation_without_any_template() -> None:
    assert refusal(None, talk("a", "b")) == (
        "data.chat_template: the tokenizer has no chat template, and the data holds conversations "
        "(messages, ShareGPT); name a Jinja file, or a model whose tokenizer has a template"
    )


def test_an_answer_to_nothing_alone_teaches_nothing() -> None:
    assert "no answer to a message" in refusal(CHATML, talk("", "Welcome!", "a"))


def test_a_conversation_whose_answers_are_all_marked_teaches_nothing() -> None:
    assert refusal(CHATML, masked(talk(*TALK), 1, 3)) == (
        "train.jsonl:7: every answer in the conversation is marked as not to be learnt; delete it, "
        "or mark one as to be learnt"
    )


def test_a_marked_answer_that_is_written_otherwise_later_cannot_be_left_out_of_all() -> None:
    fields = masked(talk("a", "<think>x</think>b", "c", "d"), 1)
    with pytest.raises(BadInput) as caught:
        Renderer(chat_tokenizer(THINKING)).whole(fields, WHERE, with_prompt=False)
    assert str(caught.value) == (
        "train.jsonl:7: the chat template writes message 2 otherwise once another follows: which "
        "tokens are not to be learnt cannot be told; set task.assistant_only_loss to true"
    )


# -- a template of one's own --------------------------------------------------------------------


def test_a_given_template_takes_the_place_and_is_saved(tmp_path: Path) -> None:
    (tmp_path / "own.jinja").write_text(GEMMA)
    tokenizer = chat_tokenizer(CHATML)
    use_template(tokenizer, str(tmp_path / "own.jinja"))
    tokenizer.save_pretrained(tmp_path)
    assert type(tokenizer).from_pretrained(tmp_path).chat_template == GEMMA


@pytest.mark.parametrize(
    ("content", "error"),
    [
        (b"{% for %}", "own.jinja:1: no Jinja (Expected an expression, got 'end of statement "
         "block'); fix it"),
        (b"\xff", "data.chat_template: own.jinja cannot be read (not UTF-8); name a Jinja file"),
        (None, "data.chat_template: own.jinja cannot be read (No such file or directory); name a "
         "Jinja file"),
    ],
)  # fmt: skip
def test_a_file_that_is_no_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, error: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if content is not None:
        Path("own.jinja").write_bytes(content)
    with pytest.raises(BadInput) as caught:
        use_template(chat_tokenizer(), "own.jinja")
    assert str(caught.value) == error
