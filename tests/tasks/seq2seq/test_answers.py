"""An answer is compared with what the tokenizer leaves of the target."""

from __future__ import annotations

from pathlib import Path

import torch
from tasks.pairs import record, task
from tiny_seq2seq import eos_tokenizer, marian_tokenizer, tiny_seq2seq

from bigft.tasks.round_trip import UNKNOWN


def test_an_answer_is_compared_with_what_was_learnt(tmp_path: Path) -> None:
    """Not with characters that the tokenizer has no token for, which no model could write."""
    one = task(marian_tokenizer(tmp_path))
    part = {"generated": "你好", "loss": 2.0, "targets": 3, "correct": 1}
    (feature,) = one.encode(record("abc", "你{好}"))
    assert feature.notes == (UNKNOWN.format(token="<unk>"),)
    prediction = one.stitch([part], record("abc", "你{好}"))
    assert prediction["reference"] == "你好"
    metric = one.metric()
    metric.update([prediction], [record("abc", "你{好}")])
    assert metric.compute()["chrf"] == 100


def test_a_target_that_is_cut_is_compared_and_looked_at_as_a_whole(tmp_path: Path) -> None:
    one = task(marian_tokenizer(tmp_path), max_target_length=3)
    (feature,) = one.encode(record("abc", "你好你好{"))
    assert feature.lost_targets > 0
    cut = "have their target cut at 3 tokens: task.max_target_length"
    assert feature.notes == (UNKNOWN.format(token="<unk>"), cut)
    part = {"generated": "", "loss": 2.0, "targets": 3, "correct": 1}
    assert one.stitch([part], record("abc", "你好你好{"))["reference"] == "你好你好"


def test_an_answer_is_written_as_it_was_learnt() -> None:
    """Where the tokenizer's own decoding would move its punctuation."""
    tokenizer = eos_tokenizer(merges=[("\u0120", ",")], clean_up_tokenization_spaces=True)
    tokenizer.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output = True
    model = tiny_seq2seq("bart", vocab_size=264)
    one = task(tokenizer, model)
    (feature,) = one.encode(record("ab", "a , b"))
    assert tokenizer.decode(feature.columns["labels"]) == " a, b</s>"
    assert one.preview(feature)[1] == (" a , b</s>", True)
    part = {"generated": "a , b", "loss": 2.0, "targets": 3, "correct": 1}
    assert one.stitch([part], record("ab", "a , b"))["reference"] == "a , b"
    with torch.no_grad():  # of a model that writes nothing but " ,"
        model.final_logits_bias.fill_(-100)[0, tokenizer.convert_tokens_to_ids("\u0120,")] = 0
    (answer,) = one.answer(model, one.collate([feature]))
    assert answer["generated"] == " ,".join([""] * 9).strip()
