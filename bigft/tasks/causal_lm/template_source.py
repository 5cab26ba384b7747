"""Where a chat template comes from, what serves in its place, and the clock that it may write."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bigft.config.errors import BadInput, Problem

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

# What serves where the tokenizer has no template, by the form of the data. bos_token is empty
# where the tokenizer puts none before a text. A text that holds its bos or eos gets no second one,
# and one that something is put before loses its bos.
BOS = "{{ '' if messages[0]['content'].lstrip().startswith(bos_token) else bos_token }}"
EOS = "{{ '' if message['content'].rstrip().endswith(eos_token) else eos_token }}"
PLAIN = {
    "prompt": BOS
    + (
        "{% for message in messages %}{{ message['content'] }}"
        "{% if message['role'] == 'assistant' %}" + EOS + "{% elif message['role'] == 'system' %}"
        "\n\n{% endif %}{% endfor %}"
    ),
    "instruction": (
        "{{ bos_token }}{% for message in messages %}"
        "{% if message['role'] == 'assistant' %}{{ message['content'] }}" + EOS + "\n\n"
        "{% else %}{% set text = message['content'].removeprefix(bos_token) %}"
        "{% if message['role'] == 'user' %}### Instruction:\n{{ text }}\n\n### Response:\n"
        "{% else %}{{ text }}\n\n{% endif %}{% endif %}{% endfor %}"
    ),
}


CLOCK = "strftime_now"  # what transformers calls the clock that it gives to templates
# Put before a template, a clock that stands still. Jinja drops the line end behind a block: the
# template begins a line of its own.
STILL_CLOCK = (
    f"{{% macro {CLOCK}(format) %}}{{% set ns = namespace(text=format.replace('%%', '\\0')) %}}"
    "{% for directive, value in clock_directives.items() %}"
    "{% set ns.text = ns.text.replace(directive, value) %}{% endfor %}"
    "{{ ns.text.replace('\\0', '%') }}{% endmacro %}\n"
)
LETTERS = "aAbBcCdDeFgGhHIjklmMnpPrRsStTuUVwWxXyYzZ"
DIRECTIVES = [f"%{flag}{letter}" for flag in ("", "-") for letter in LETTERS]


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
        problem = Problem(f"{file}:{error.lineno}", f"no Jinja ({error.message})", "fix it")
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
