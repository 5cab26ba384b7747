"""What a generated answer is compared with: what was learnt, to the last token."""

from __future__ import annotations

from typing import Any

import pytest
from tasks.causal import causal_model, causal_task, talk
from tasks.chat import BARE, CHATML, EMPTY_THOUGHT, LLAMA, MISTRAL, THINKING, chat_tokenizer
from tiny import byte_tokenizer, letter_tokenizer
from tokenizers import decoders

from bigft.data.records import IGNORE_INDEX, Record
from bigft.tasks.round_trip import CHANGED, UNKNOWN

CALLS = CHATML.replace(
    "{{ message['content'] }}",
    "{{ message['content'] }}{% if message['tool_calls'] %}<call>{{ message['tool_calls'][0] }}"
    "</call>{% endif %}",
)


@pytest.mark.parametrize(
    ("template", "answer", "reference"),
    [
        (CHATML, {"content": "cd"}, "cd"),
        (EMPTY_THOUGHT, {"content": " cd\n"}, "<think>\n\n</think>\n\ncd"),
        (LLAMA, {"content": " cd "}, "cd"),
        (MISTRAL, {"content": "cd"}, " cd"),
        (THINKING, {"content": "<think>x</think>cd"}, "<think>x</think>cd"),
        (CHATML.replace("message['content']", "message['content'].split('</think>')[-1]"),
         {"content": "<think>x</think>cd"}, "cd"),
        (CHATML, {"content": "c<|header|>d"}, "cd"),  # as special tokens in an answer are left out
        (CALLS, {"content": "cd", "tool_calls": ["f()"]}, "cd<call>f()</call>"),
        (BARE, {"content": "cd"}, " cd\n"),
    ],
)  # fmt: skip
def test_an_answer_is_compared_with_what_the_template_makes_of_it(
    template: str, answer: dict[str, Any], reference: str
) -> None:
    """Which is what a model writes that has learnt it to the last token."""
    task = causal_task(template=template, task={"predict_with_generate": True})
    task.attach_head(causal_model())
    record = talk("ab")
    record.fields["messages"].append({"role": "assistant", **answer})
    *_, row = task.encode(record)
    part = {"loss": 1.0, "targets": 1, "correct": 1, "generated": reference}
    prediction = task.stitch([part], record)
    assert prediction["reference"] == reference
    learnt = [label for label in row.columns["labels"] if label != IGNORE_INDEX]
    assert task.tokenizer.decode(learnt, skip_special_tokens=True) == reference
    metric = task.metric()
    metric.update([prediction], [record])
    assert metric.compute()["exact_match"] == 1


def test_a_reference_ends_where_generation_does() -> None:
    """At a mark that is no special token, and at one of the model's own in the middle."""
    tokenizer = chat_tokenizer(CHATML.replace("<|im_end|>", "<end>"))
    tokenizer.add_tokens(["<end>", "<stop>"])
    task, model = causal_task(tokenizer=tokenizer), causal_model()
    model.generation_config.eos_token_id = tokenizer.convert_tokens_to_ids("<stop>")
    task.attach_head(model)
    part = {"loss": 1.0, "targets": 1, "correct": 1, "generated": ""}
    assert task.stitch([part], talk("ab", "cd"))["reference"] == "cd"
    assert task.stitch([part], talk("ab", "c<stop>d"))["reference"] == "c"


def test_a_reference_is_whole_where_the_row_is_cut() -> None:
    task = causal_task()
    task.attach_head(causal_model())
    record = talk("ab", "cdefgh")
    cut = causal_task(task.encode(record)[0].length - 3)
    cut.attach_head(causal_model())
    assert cut.encode(record)[0].lost_targets == 3
    part = {"loss": 1.0, "targets": 1, "correct": 1, "generated": ""}
    assert cut.stitch([part], record)["reference"] == "cdefgh"


def test_what_of_a_target_is_not_learnt_is_noted() -> None:
    tokenizer = letter_tokenizer(eos_token="[SEP]", chat_template="{% for m in messages %}"
                                 "{{ m['content'] }} {% if m['role'] == 'assistant' %}[SEP]"
                                 "{% endif %}{% endfor %}")  # fmt: skip
    tokenizer.backend_tokenizer.decoder = decoders.WordPiece()
    unknown = UNKNOWN.format(token="[UNK]")
    task = causal_task(tokenizer=tokenizer)
    assert [row.notes for row in task.encode(talk("A 5", "cd"))] == [()]  # a prompt is no target
    assert [row.notes for row in task.encode(talk("a", "c 5"))] == [(unknown,)]
    assert [row.notes for row in task.encode(talk("a", "c 5", "d", "E"))] == [(unknown, CHANGED)]
    rows = causal_task(3, tokenizer=tokenizer).encode(Record(0, {"text": "a 5 b c D"}, "d.txt", 1))
    assert [row.notes for row in rows] == [(unknown, CHANGED)] * 2


def test_a_token_over_the_border_is_no_change() -> None:
    joined = BARE.replace(": ", "").replace("assistant:", "assistant")
    tokenizer = byte_tokenizer([("t", "c")], eos_token="</s>", chat_template=joined)
    tokenizer.backend_tokenizer.decoder = decoders.ByteLevel()
    (feature,) = causal_task(tokenizer=tokenizer).encode(talk("ab", "cd"))
    assert CHANGED not in feature.notes
