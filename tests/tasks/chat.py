"""Tokenizers and chat templates as models for chat have them, for tests."""

from __future__ import annotations

from typing import Any

from tiny import byte_tokenizer
from tokenizers import decoders, processors
from transformers import PreTrainedTokenizerFast

USERS = "{% if message['role'] == 'user' %}"
# A header and a mark for every turn; a system turn of its own.
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# Bos, headers between marks, text without white space around it.
LLAMA = (
    "{{ bos_token }}{% for message in messages %}<|header|>{{ message['role'] }}<|end_header|>\n\n"
    "{{ message['content'] | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|header|>assistant<|end_header|>\n\n{% endif %}"
)
# No system, strict alternation, no generation prompt; eos ends an answer.
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('roles must alternate: user, assistant, ...') }}{% endif %}"
    "{% if message['role'] == 'user' %}[INST] {{ message['content'] }} [/INST]"
    "{% else %} {{ message['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)
# The assistant is called model, and the mark of its end is not eos.
GEMMA = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "<turn>{{ role }}\n{{ message['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<turn>model\n{% endif %}"
)
# Thoughts of answers before the last question are left out.
THINKING = (
    "{% set ns = namespace(last=-1) %}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{% for message in messages %}{% set content = message['content'] %}"
    "{% if message['role'] == 'assistant' and loop.index0 < ns.last and '</think>' in content %}"
    "{% set content = content.split('</think>')[-1] | trim %}{% endif %}"
    "<|im_start|>{{ message['role'] }}\n{{ content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# An answer gets a thought, an empty one where it has none (a mark that is no special token), and is
# trimmed.
EMPTY_THOUGHT = CHATML.replace(
    "{{ message['content'] }}",
    "{% if message['role'] == 'assistant' %}<think>\n\n</think>\n\n{{ message['content'] | trim }}"
    "{% else %}{{ message['content'] }}{% endif %}",
)
# Today's date stands before all else, as in Llama 3.1's.
DATED = "<|im_start|>system\nToday is {{ strftime_now('%d %b %Y') }}.<|im_end|>\n" + CHATML
# The generation prompt opens a thought that a written answer does not hold.
OPENING = CHATML.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
# Nothing but the speaker's name tells an answer, and a new line its end.
BARE = (
    "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
# How many turns there are stands at the beginning.
COUNTING = "{{ messages | length }}" + CHATML
MARKS = ("<|im_start|>", "<|im_end|>", "<|header|>", "<|end_header|>", "<|eot|>", "<turn>",
         "<end_of_turn>", "[INST]", "[/INST]")  # fmt: skip


def chat_tokenizer(template: Any = None, **options: Any) -> PreTrainedTokenizerFast:
    """Byte-level, a byte a token; bos before a text, the marks of all templates one token each."""
    tokenizer = byte_tokenizer(bos_token="<s>", eos_token="</s>", **options)
    backend = tokenizer.backend_tokenizer
    backend.pre_tokenizer.add_prefix_space = False
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 2)]
    )
    tokenizer.add_special_tokens({"additional_special_tokens": list(MARKS)})
    tokenizer.chat_template = template
    return tokenizer
