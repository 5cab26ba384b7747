"""What is found for a mask is what transformers' fill-mask finds."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tasks.masked import masked_task
from tasks.masked_lm.test_next_sentence import pair_task
from tiny import tiny_model
from transformers import pipeline

from bigft.config.errors import BadInput

TEXTS = ["ab [MASK] c", "[MASK] d [MASK] ef"]


@pytest.mark.parametrize("of_pairs", [False, True])
def test_the_likeliest_tokens_of_each_mask_are_those_of_a_pipeline(of_pairs: bool) -> None:
    one: Any = pair_task(max_length=20) if of_pairs else masked_task(max_length=20)
    model = tiny_model("bert", one.auto_class, vocab_size=57)
    plain = tiny_model("bert", "AutoModelForMaskedLM", vocab_size=57)
    plain.load_state_dict(model.state_dict(), strict=False)
    one.attach_head(model)
    records = [one.prompt(text, number, "--text", 1) for number, text in enumerate(TEXTS)]
    rows = [row for record in records for row in one.encode_prompt(record)]
    with torch.no_grad():
        parts = one.answer(model, one.collate(rows))
    answers = [one.stitch([part], record) for part, record in zip(parts, records, strict=True)]
    fill = pipeline("fill-mask", model=plain, tokenizer=one._tokenizer)
    for text, answer in zip(TEXTS, answers, strict=True):
        theirs = fill(text)
        expected = theirs if isinstance(theirs[0], list) else [theirs]
        assert answer["text"] == text
        for ours, each in zip(answer["masks"], expected, strict=True):
            assert [mask["token_str"] for mask in ours] == [mask["token_str"] for mask in each]
            assert [mask["score"] for mask in ours] == pytest.approx(
                [mask["score"] for mask in each], rel=1e-5
            )


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("ab c", "f.txt:3: no [MASK] in the text; write [MASK] where a token is to be found"),
        ("[MASK] " + "a" * 30,
         "f.txt:3: 33 tokens, but data.max_seq_length is 20; give a shorter text"),
    ],
)  # fmt: skip
def test_a_prompt_that_cannot_be_answered_is_refused(text: str, answer: str) -> None:
    one = masked_task(max_length=20)
    with pytest.raises(BadInput) as refused:
        one.encode_prompt(one.prompt(text, 0, "f.txt", 3))
    assert str(refused.value) == answer
