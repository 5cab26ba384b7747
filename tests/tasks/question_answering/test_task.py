"""Rows, batches, answers and thresholds of the task."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
import torch
from tasks.questions import CUT_BY, record, task
from tiny import byte_tokenizer, letter_tokenizer, tiny_model

from bigft.config.errors import BadInput
from bigft.models.heads.swap import base_model
from bigft.tasks.protocol import Prompts, Submits
from bigft.tasks.question_answering.targets import NO_TOKEN, OUTSIDE
from bigft.tasks.unlearnable import NO_INPUT, UNKNOWN_INPUT

QUESTION, CONTEXT = "who ran", "a cat ran up a tall old tree and sat on it all day long"


def model_for(one: Any, architecture: str = "bert") -> Any:
    model = tiny_model(architecture, "AutoModelForQuestionAnswering", num_labels=2)
    one.attach_head(model)
    return model


def test_a_start_and_an_end_are_a_target_each() -> None:
    rows = task(max_length=24, doc_stride=6).encode(record(QUESTION, CONTEXT, "old"))
    assert len(rows) > 2
    assert all(row.num_targets == 2 and row.num_windows == len(rows) for row in rows)
    assert rows[0].columns["labels"] == [0, 0]
    assert rows[0].notes == (OUTSIDE,)
    batch = task().collate(rows)
    assert batch.labels.shape == (len(rows), 2)
    assert batch.num_targets == 2 * len(rows) == len(batch.target_rows_M)
    assert batch.size == sum(len(row.columns["input_ids"]) for row in rows)
    assert batch.without_targets().labels.tolist() == [[-100, -100]] * len(rows)


def test_batches_hold_what_the_tokenizer_makes_of_a_pair() -> None:
    rows = [
        *task().encode(record(QUESTION, CONTEXT, "old")),
        *task().encode(record("q", "ab", "ab")),
    ]
    batch = task().collate(rows)
    expected = letter_tokenizer()(
        [QUESTION, "q"], [CONTEXT, "ab"], padding=True, return_tensors="pt"
    )
    assert {*batch.inputs} == {*expected}
    assert all(torch.equal(batch.inputs[name], expected[name]) for name in expected)
    of_bytes = task(byte_tokenizer())
    (row,) = of_bytes.encode(record("q", "ab", "ab"))
    assert {*of_bytes.collate([row]).inputs} == {"input_ids", "attention_mask"}


def test_what_cannot_be_learnt_is_noted() -> None:
    (row,) = task().encode(record("q", "ab \u200b", "\u200b"))
    assert (row.num_targets, row.lost_targets, row.notes) == (0, 2, (NO_TOKEN,))
    (row,) = task().encode(record("q", "ab 你", "ab"))
    assert row.notes == (UNKNOWN_INPUT,)
    (row,) = task().encode(record("谁", "你", "你"))
    assert row.notes == (NO_INPUT,)
    rows = task(max_length=17).encode(record("a" * 9, "b" * 9, "bb"))
    assert rows[0].notes[0] == f"have their question cut at 7 tokens, half of a row: {CUT_BY}"
    assert all(row.notes == () for row in rows[1:])


def test_the_answer_is_shown_among_its_tokens() -> None:
    (row,) = task().encode(record("q", "an old cat", "old"))
    shown = task().preview(row)
    assert shown == [
        ("[CLS] q [SEP] a ##n", False), ("o ##l ##d", True), ("c ##a ##t [SEP]", False)
    ]  # fmt: skip
    (row,) = task(version_2_with_negative=True).encode(record("q", "an old cat"))
    assert task().preview(row)[0] == ("[CLS]", True)


@pytest.mark.parametrize("architecture", ["bert", "roberta"])
def test_answers_are_spans_of_the_original_text(architecture: str) -> None:
    tokenizer = byte_tokenizer() if architecture == "roberta" else letter_tokenizer()
    one = task(tokenizer, max_length=40, n_best_size=5, version_2_with_negative=True)
    model = model_for(one, architecture)
    asked = record(QUESTION, CONTEXT.title(), "Old")
    rows = one.encode(asked)
    assert len(rows) > 1
    with torch.no_grad():
        predicted = one.predict(model, one.collate(rows))
    answer = one.stitch(predicted.parts, asked)
    assert len(answer["answers"]) > 1
    for span in answer["answers"]:
        assert asked.fields["context"][span["start"] : span["end"]] == span["text"]
        assert span["text"] == span["text"].strip() != ""
    ends = sorted((span["start"], span["end"]) for span in answer["answers"])
    assert all(end <= start for (_, end), (start, _) in pairwise(ends))
    scores = [span["score"] for span in answer["answers"]]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) < 1
    assert isinstance(one, Prompts)
    assert one.answer(model, one.collate(rows)) == predicted.parts


def parts(score: float, null: float) -> list[dict[str, Any]]:
    return [{"null": null, "spans": [[score, 9, 12]]}]


def test_no_answer_must_win_by_the_threshold() -> None:
    asked = record("q", "it is an old cat")
    one = task(version_2_with_negative=True, null_score_diff_threshold=0.5)
    answered = one.stitch(parts(1.0, 1.5), asked)
    assert (answered["answer"], answered["start"], answered["end"]) == ("old", 9, 12)
    unanswered = one.stitch(parts(1.0, 1.75), asked)
    assert (unanswered["answer"], unanswered["start"], unanswered["end"]) == ("", None, None)
    assert unanswered["null_score_diff"] == 0.75
    assert unanswered["score"] + unanswered["answers"][0]["score"] == pytest.approx(1)
    always = task().stitch(parts(1.0, 99.0), asked)
    assert (always["answer"], always["score"]) == ("old", 1)
    assert isinstance(one, Submits)
    assert one.submission(asked, unanswered) == ("q0", "")
    assert one.submission(asked, answered) == ("q0", "old")


def test_a_tuned_threshold_is_that_of_the_validation_set_and_stays() -> None:
    one = task(version_2_with_negative=True, null_score_diff_threshold="tune")
    metric = one.metric()
    questions = [(2.0, ["old"]), (4.0, [])]  # differences, gold answers
    for diff, answers in questions:
        asked = record("q", "it is an old cat", *answers)
        metric.update([one.stitch(parts(0.0, diff), asked)], [asked])
    assert one.tuned(metric) == {"null_score_diff_threshold": 3.0}
    assert one.metric().compute().keys() >= {"best_f1", "null_score_diff_threshold"}
    asked = record("q", "it is an old cat")
    assert one.stitch(parts(0.0, 2.0), asked)["answer"] == ""
    one.use_tuned({"null_score_diff_threshold": 3.0, "hidden_size": 4})
    assert one.stitch(parts(0.0, 2.0), asked)["answer"] == "old"
    assert one.metric().compute()["null_score_diff_threshold"] == 3.0
    stated = task(version_2_with_negative=True, null_score_diff_threshold=1.0)
    stated.use_tuned({"null_score_diff_threshold": 3.0})
    assert stated.metric().compute()["null_score_diff_threshold"] == 1.0
    assert stated.tuned(metric) == {}


def test_the_models_config_says_when_there_is_no_answer() -> None:
    stale = {"null_score_diff_threshold": 9.0}
    for options, expected in [
        ({}, None),
        ({"version_2_with_negative": True}, 0.0),
        ({"version_2_with_negative": True, "null_score_diff_threshold": 1.5}, 1.5),
        ({"version_2_with_negative": True, "null_score_diff_threshold": "tune"}, None),
    ]:
        model = tiny_model("bert", "AutoModelForQuestionAnswering", num_labels=2, **stale)
        one = task(**options)
        one.attach_head(model)
        assert base_model(model).config.to_dict().get("null_score_diff_threshold") == expected


def test_prompts_are_pairs() -> None:
    given = {"question": "q", "context": "ab", "id": 7, "more": 1}
    asked = task().prompt(given, 3, "a.jsonl", 4)
    assert asked.fields == {"id": "7", "question": "q", "context": "ab"}
    assert task().prompt({"question": "q", "context": "ab"}, 3, "a.jsonl", 4).fields["id"] == "3"
    (row,) = task().encode_prompt(asked)
    assert row.num_targets == 0
    assert row.columns["labels"] == [-100, -100]
    fix = 'give --question and --context, or write {"question": "...", "context": "..."}'
    with pytest.raises(BadInput) as caught:
        task().prompt("who?", 0, "--text", 1)
    assert str(caught.value) == f"--text:1: a text alone, but a question is asked; {fix}"
    with pytest.raises(BadInput) as caught:
        task().prompt({"question": "who?"}, 0, "a.jsonl", 2)
    assert str(caught.value).startswith("a.jsonl:2: no field 'context'; there are question; ")
