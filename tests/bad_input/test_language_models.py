"""Bad input of a language model's run is refused before training, by name and with the fix."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import byte_tokenizer, tiny_model

Refused = Callable[..., list[str]]

CONFIG = """\
task: causal-lm
model: {model_name_or_path: model}
data:
  train_file: chat.jsonl
  max_seq_length: 48
train:
  output_dir: run
"""
TEMPLATE = (
    "{% for m in messages %}{% if m['role'] == 'tool' %}{{ raise_exception('no tools here') }}"
    "{% endif %}<s>{{ m['role'] }} {{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant {% endif %}"
)
SPECIALS = {"eos_token": "</s>", "bos_token": "<s>"}


def message(role: str, content: Any) -> dict[str, Any]:
    return {"role": role, "content": content}


GOOD = {"messages": [message("user", "hi"), message("assistant", "ho")]}


@pytest.fixture
def place(here: Path) -> Path:
    """A run of a tiny Llama on one good conversation."""
    tiny_model("llama", "AutoModelForCausalLM").save_pretrained("model")
    save_tokenizer()
    Path("config.yaml").write_text(CONFIG)
    Path("chat.jsonl").write_text(json.dumps(GOOD) + "\n")
    return here


def save_tokenizer(**specials: str | None) -> None:
    tokenizer = byte_tokenizer(**{**SPECIALS, **specials})
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained("model")


def test_what_is_spoilt_here_is_accepted_as_it_is(notes: Callable[..., list[str]]) -> None:
    assert notes() == []


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ('{"messages": [', "chat.jsonl:2:15: no JSON (Expecting value); write one JSON object a "
         "line"),
        ({"messages": [message("user", "hi"), {"content": "ho"}]},
         "chat.jsonl:2: message 2 of `messages` has no role (keys: content); give it \"role\" (or "
         '"from")'),
        ({"messages": [message("user", "hi"), message("asistant", "ho")]},
         "chat.jsonl:2: message 2 of `messages` has the unknown role 'asistant'; did you mean "
         "assistant?"),
        ({"messages": [message("user", "hi"), message("assistant", " ")]},
         "chat.jsonl:2: message 2 of `messages`, the assistant's, is empty; write an answer or "
         "delete it"),
        ({"messages": [message("user", "hi")]},
         "chat.jsonl:2: no assistant's message in `messages`; nothing could be learnt from it"),
        ({"messages": [message("user", "hi"), message("tool", "x"), message("assistant", "ho")]},
         "chat.jsonl:2: the chat template refuses it (TemplateError: no tools here); fix the "
         "sample, or give another data.chat_template"),
        ({"messages": [message("user", "hi " * 40), message("assistant", "ho")]},
         "chat.jsonl:2: its 3 targets stand beyond the first 48 tokens: nothing is left to learn; "
         "raise data.max_seq_length, or delete the sample"),
        ({"messages": [message("user", "hi"), message("assistant", "ho") | {"weight": 0.5}]},
         "chat.jsonl:2: `weight` of message 2 of `messages` is 0.5, which does not tell whether it "
         'is learnt; write "weight": 0 (not learnt) or 1, or name the key otherwise'),
        ({"messages": [message("user", "hi"), message("assistant", "ho") | {"train": False}]},
         "chat.jsonl:2: every answer in the conversation is marked as not to be learnt; delete it, "
         "or mark one as to be learnt"),
        ({"messages": [message(["user"], "hi")]},  # type: ignore[arg-type]
         "chat.jsonl:2: message 1 of `messages` has the unknown role ['user']; did you mean user?"),
        ('{"messages": [{"role": "user", "content": "\\ud83d"}]}',
         "chat.jsonl:2: one half of a surrogate pair (\\ud800 to \\udfff): no character; cut texts "
         "between characters"),
        ({"instruction": "say", "output": "ho"},
         "chat.jsonl:2: the form Alpaca (fields: instruction, output) in a file that began as "
         "messages at line 1; put one form in a file"),
    ],
)  # fmt: skip
def test_a_sample_that_cannot_be_used(
    refused: Refused, line: Any, answer: str, place: Path
) -> None:
    text = line if isinstance(line, str) else json.dumps(line)
    with Path("chat.jsonl").open("a") as file:
        file.write(text + "\n")
    assert refused() == [answer]


def test_what_is_not_done_with_conversations_is_counted_with_the_first_line(
    notes: Callable[..., list[str]], place: Path
) -> None:
    odd = {"messages": [*GOOD["messages"], message("user", "and?")]}
    dropped = {"messages": [message("user", "hi"), message("assistant", "ho") | {"learn": False}]}
    Path("chat.jsonl").write_text("".join(json.dumps(r) + "\n" for r in (GOOD, odd, odd, dropped)))
    expected = [
        "2 of 4 records of train (first chat.jsonl:2) end with a turn of the user, which no answer "
        "follows",
        "1 of 4 records of train (first chat.jsonl:4) hold 'learn' in their turns, which neither "
        "bigft nor the chat template reads",
    ]
    assert notes() == expected
    assert notes() == expected  # from the cache, too
    Path("bare.jinja").write_text(TEMPLATE.replace("<s>", "").replace("</s>", ""))
    assert notes("data.chat_template=bare.jinja")[0] == (
        "4 of 4 records of train (first chat.jsonl:1) end an answer with no stop token, so that "
        "the model does not learn to stop: let data.chat_template write </s> after an answer"
    )


def write(*rows: dict[str, Any]) -> None:
    Path("chat.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


CALL = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]}


@pytest.mark.parametrize(
    ("content", "row"),
    [
        # As templates for images do: of a string, the parts are its characters.
        ("{% for part in m['content'] if part.type == 'text' %}{{ part.text }}{% endfor %}", GOOD),
        ("{% if m['content'] is not string %}{{ m['content'][0].text }}{% endif %}", GOOD),
        ("{{ m['text'] }}", GOOD),
        ("{{ m['content'] if m['role'] == 'user' }}", GOOD),
        ("{{ m['content'] }}", {"messages": [message("user", "hi"), CALL]}),
    ],
)
@pytest.mark.parametrize("words", [[], ["task.assistant_only_loss=false"]])
def test_a_template_that_writes_nothing_of_any_answer(
    refused: Refused, place: Path, content: str, row: dict[str, Any], words: list[str]
) -> None:
    write(row, row)
    Path("own.jinja").write_text(TEMPLATE.replace("{{ m['role'] }} {{ m['content'] }}", content))
    assert refused("data.chat_template=own.jinja", *words) == [
        "command line: data.chat_template=own.jinja: the chat template writes nothing of what the "
        "answers say: only the marks around them could be learnt, in all 2 records of train (first "
        "chat.jsonl:1); name a template that writes a message's content where it is a string (one "
        "for images or sound may want a list of parts)"
    ]


def test_a_template_that_writes_nothing_of_some_answers(
    notes: Callable[..., list[str]], place: Path
) -> None:
    write(GOOD, {"messages": [message("user", "hi"), message("assistant", "<t>hm</t>")]})
    after = TEMPLATE.replace("m['content']", "m['content'].split('</t>')[-1]")
    Path("own.jinja").write_text(after)
    assert notes("data.chat_template=own.jinja") == [
        "1 of 2 records of train (first chat.jsonl:2) lose text of the assistant to the chat "
        "template",
        "1 of 2 records of train (first chat.jsonl:2) learn nothing that their answers say: the "
        "chat template writes none of it",
    ]


def test_one_answer_of_each_conversation_that_is_written_is_enough(
    notes: Callable[..., list[str]], place: Path
) -> None:
    write({"messages": [message("user", "a"), CALL, *GOOD["messages"]]})
    assert notes() == [
        "1 of 1 records of train (first chat.jsonl:1) hold 'tool_calls' in their turns, which "
        "neither bigft nor the chat template reads"
    ]


def test_what_every_record_meets_is_told_once(refused: Refused, place: Path) -> None:
    write(*[GOOD] * 30)
    byte_tokenizer(**SPECIALS).save_pretrained("model")
    Path("model/chat_template.jinja").unlink()
    assert refused() == [
        "config.yaml: data.chat_template: the tokenizer has no chat template, and the data holds "
        "conversations (messages, ShareGPT); name a Jinja file, or a model whose tokenizer has a "
        "template"
    ]
    write({"text": "a"}, {"text": "b"})
    (answer,) = refused("task.predict_with_generate=true")
    assert "task.predict_with_generate=true: plain text holds no prompt to answer" in answer


def test_a_tokenizer_without_eos(refused: Refused, place: Path) -> None:
    save_tokenizer(eos_token=None)
    (answer,) = refused()
    assert answer == (
        "config.yaml:2: model.model_name_or_path: the tokenizer of model has no eos token; add "
        '"eos_token" to its tokenizer_config.json or name another one in model.tokenizer_name'
    )


def test_a_tokenizer_without_pad_pads_with_eos(
    notes: Callable[..., list[str]], place: Path
) -> None:
    save_tokenizer(pad_token=None)
    assert notes() == ["rows are padded with the eos token </s>: padding is no target"]


def test_a_vocabulary_larger_than_the_embedding(refused: Refused, place: Path) -> None:
    tiny_model("llama", "AutoModelForCausalLM", vocab_size=100).save_pretrained("model")
    assert refused() == [
        "config.yaml: model.tokenizer_name: the tokenizer's token '\u0143' has the id 259, the "
        "model's embedding 100 rows (ids up to 99); use the model's own tokenizer"
    ]


@pytest.mark.parametrize(
    ("overrides", "answer"),
    [
        (["adapt={method: lora, target_modules: [q_prj]}"],
         "'q_prj' matches no module; did you mean q_proj?"),
        (["adapt={method: dora}", "parallel.zero_stage=3"],
         "DoRA takes the norms of whole weights"),
        (["adapt={method: prompt}", "data.packing=true"], "virtual tokens"),
        (["adapt={method: prompt, num_virtual_tokens: 64}"],
         "64, but the model has 64 positions in all"),
        (["parallel.offload_param=cpu"],
         "at parallel.zero_stage 1 every rank keeps all parameters"),
        (["data.chat_template=none.jinja"],
         "none.jinja cannot be read (No such file or directory); name a Jinja file"),
        (["data.chat_template=/dev/null"], "/dev/null: a pipe or a device: it can be read only"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_had(
    refused: Refused, place: Path, overrides: list[str], answer: str
) -> None:
    (found,) = refused(*overrides)
    assert answer in found


def test_a_share_for_a_file_that_gives_nothing(refused: Refused, place: Path) -> None:
    Path("more.jsonl").write_text(json.dumps(GOOD) + "\n")
    words = ["data.train_file=[chat.jsonl, more.jsonl]", "data.interleave_probs=[0.5, 0.5]"]
    assert refused(*words, "data.max_train_samples=1") == [
        f"command line: {words[1]}: a share for more.jsonl, of which no sample is used; take it "
        "out, or raise data.max_train_samples"
    ]


def test_a_missing_file_of_pairs(refused: Refused, place: Path) -> None:
    assert refused("task=seq2seq", "data.train_file=none.tsv", "data.max_seq_length=null")[0] == (
        "none.tsv: no such file; its directory . exists"
    )
