"""What a task and the other sections say against each other."""

from __future__ import annotations

import pytest

from bigft.config.errors import BadInput
from bigft.config.load import load_config

LM = ["task=causal-lm", "model.model_name_or_path=m", "data.train_file=t", "train.output_dir=o"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data.packing=true"],
         "data.packing=true: true, but data.max_seq_length, the length of a row, is not given; "
         "give it: 2048, for example"),
        (["task=token-classification", "data.packing=true", "data.max_seq_length=8"],
         "given, but task token-classification has no use for it; leave it out, or train a "
         "causal-lm"),
        (["task=seq2seq", "data.chat_template=x.jinja"],
         "given, but task seq2seq has no use for it; leave it out, or train a causal-lm"),
        (["data.format=parallel"],
         "parallel is of pairs of texts, which task causal-lm does not read; set task to seq2seq"),
        (["data.label_list=[a]"],
         "given, but the targets of task causal-lm are tokens, not labels; leave it out"),
        (["optim.class_weights={a: 2.0}"],
         "given, but the targets of task causal-lm are tokens, not labels; leave it out"),
        (["data.interleave_probs=[0.5, 0.5]"],
         "2 shares for 1 files in data.train_file; give one share for each"),
        (["task.assistant_only_loss=false", "task.mask_history=true"],
         "true, but task.assistant_only_loss is false: every token is a target; set one of them "
         "to the other value"),
        (["task.exact_match_pattern='#### (.+)'"],
         "given, but task.predict_with_generate is false: nothing is generated to compare; set "
         "task.predict_with_generate to true"),
    ],
)  # fmt: skip
def test_contradictions_of_a_task_are_refused_with_both_keys(
    overrides: list[str], message: str
) -> None:
    with pytest.raises(BadInput) as refused:
        load_config(None, [*LM, *overrides])
    (problem,) = refused.value.problems
    assert message in str(problem)


def test_a_temperature_without_drawing_is_noted() -> None:
    overrides = [*LM, "task.generation.temperature=0.5"]
    notes = load_config(None, overrides).notes
    assert any("0.5 is not used: task.generation.do_sample is false" in note for note in notes)
    quiet = load_config(None, [*overrides, "task.generation.do_sample=true"]).notes
    assert not any("is not used" in note for note in quiet)
