"""Bad questions are refused before training, by file, line and id, with the fix and exit code 2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import letter_tokenizer, tiny_model

Refused = Callable[..., list[str]]
Notes = Callable[..., list[str]]

CONFIG = """\
task: {name: question-answering}
model: {model_name_or_path: answering}
data:
  train_file: train.json
train: {output_dir: out}
"""
CONTEXT = "ulm lies on the danube"


def question(number: int, **fields: Any) -> dict[str, Any]:
    answers = [{"text": "ulm", "answer_start": 0}]
    return {"id": f"q{number}", "question": "where", "answers": answers} | fields


def write(*questions: dict[str, Any]) -> None:
    """A line for each question, from the second on."""
    lines = ",\n".join(json.dumps(each) for each in questions)
    head = json.dumps({"context": CONTEXT, "qas": []})[:-2]
    Path("train.json").write_text(f'{{"data": [{{"paragraphs": [{head}\n{lines}]}}]}}]}}')


@pytest.fixture(autouse=True)
def answering(place: Path) -> None:
    tiny_model("bert", "AutoModelForQuestionAnswering", num_labels=2).save_pretrained("answering")
    letter_tokenizer().save_pretrained("answering")
    Path("config.yaml").write_text(CONFIG)
    write(question(1), question(2))


def test_what_is_spoilt_here_is_accepted_as_it_is(notes: Notes) -> None:
    assert notes() == []


WRONG = 'question q2: the answer "danube" does not stand at character 12 of the context'


@pytest.mark.parametrize(
    ("fields", "answer"),
    [
        (
            {"answers": [{"text": "danube", "answer_start": 12}]},
            f'{WRONG} ("the da"); it stands at 16: correct it, or set data.on_bad_record to drop',
        ),
        (
            {"answers": []},
            "question q2: it has no answer; set task.version_2_with_negative to true if questions "
            "may have none",
        ),
        (
            {"id": "q1"},
            "question q1: its id is also that of train.json:2; give each question its own id",
        ),
        (
            {"question": " "},
            "question q2: the question is empty; write one, or leave the record out",
        ),
        (
            {"answers": ["ulm"]},
            'question q2: the answer "ulm" says not where in the context it stands; '
            'write "answers": {"text": ["..."], "answer_start": [0]}',
        ),
    ],
)
def test_a_question_is_named_by_file_line_and_id(
    refused: Refused, notes: Notes, fields: dict[str, Any], answer: str
) -> None:
    write(question(1), question(2, **fields))
    assert refused() == [f"train.json:3: {answer}"]
    dropped = answer.partition(";")[0]
    assert notes("data.on_bad_record=drop")[-1] == (
        f"1 of 2 records of train are dropped (data.on_bad_record): train.json:3: {dropped}"
    )


def test_where_every_question_would_be_dropped_nothing_is(refused: Refused) -> None:
    wrong = [{"text": "danube", "answer_start": 12}]
    write(question(1, answers=wrong), question(2, answers=wrong))
    assert len(refused("data.on_bad_record=drop")) == 2


def test_a_file_that_is_not_squads(refused: Refused) -> None:
    Path("train.json").write_text('{"data": [{"title": "a",\n"paragraphs": [{"qas": []}]}]}')
    assert refused() == [
        "train.json:2: a paragraph without a text `context` and an array `qas`; "
        'write {"data": [{"paragraphs": [{"context": "...", "qas": [...]}]}]}'
    ]
    Path("train.json").write_text(json.dumps(question(1)))
    assert refused("data.format=squad") == [
        "train.json: an object without an array under 'data' (keys: id, question, answers); "
        "name one of its arrays: train.json#answers"
    ]


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        (
            "task.null_score_diff_threshold=1.5",
            "1.5, but task.version_2_with_negative is false: every question is answered; "
            "set that to true, or leave the threshold out",
        ),
        (
            "data.text_column_name=context",
            "context, but task question-answering reads two texts; "
            "name the columns of question and context: [question, context]",
        ),
        (
            "optim.class_weights={O: 2}",
            "given, but the targets of task question-answering are spans, not labels; leave it out",
        ),
        ("model.fused_head=true",
         "true, but task question-answering has no fused head; set auto or false"),
        ("data.packing=true", "given, but task question-answering has no use for it; "
         "leave it out, or train a causal-lm"),
        ("adapt.method=prefix", "prefix, but the models of task question-answering read no keys of "
         "earlier tokens; choose prompt, p-tuning or lora"),
    ],
)  # fmt: skip
def test_options_that_do_not_go_together(refused: Refused, word: str, answer: str) -> None:
    words = [word, "data.max_seq_length=32"] if "packing" in word else [word]
    assert refused(*words) == [f"command line: {word}: {answer}"]


def test_a_threshold_is_tuned_on_a_validation_set(refused: Refused) -> None:
    tune = "task.null_score_diff_threshold=tune"
    assert refused(tune, "task.version_2_with_negative=true") == [
        f"command line: {tune}: tune, but there is no validation set to choose it on; "
        "give data.validation_file, or a number"
    ]
    (line,) = refused("task.null_score_diff_threshold=best", "task.version_2_with_negative=true")
    assert line.startswith('command line: task.null_score_diff_threshold=best: found "best"')


def test_a_row_without_room(refused: Refused) -> None:
    assert refused("data.max_seq_length=4") == [
        "command line: data.max_seq_length=4: 4, but 3 special tokens go in first; give at least 5"
    ]


def test_a_metric_that_no_evaluation_has(refused: Refused) -> None:
    word = "train.metric_for_best_model=exact"
    assert refused("data.validation_file=train.json", word) == [
        f"command line: {word}: no metric 'exact'; did you mean exact_match?"
    ]


def test_another_task_reads_no_squad(refused: Refused) -> None:
    words = ("task=token-classification", "data.format=squad", "model.model_name_or_path=model")
    assert refused(*words) == [
        "command line: data.format=squad: squad is of questions and answers, which task "
        "token-classification does not read; set task to question-answering"
    ]


def test_notes_count_what_is_learnt_otherwise(notes: Notes) -> None:
    twice = [{"text": "ulm", "answer_start": 0}, {"text": "danube", "answer_start": 16}]
    write(question(1, answers=twice), question(2, question="who" * 9), question(3))
    found = notes("data.max_seq_length=20", "task.doc_stride=2")
    assert [note for note in found if "records of train" in note] == [
        "1 of 3 records of train (first train.json:2) have several answers: the first one is "
        "trained on, and all count in evaluation",
        "3 of 3 records of train (first train.json:2) have windows that do not hold their answer: "
        "their targets are the first token",
        "1 of 3 records of train (first train.json:3) have their question cut at 8 tokens, half of "
        "a row: data.max_seq_length",
        "3 of 3 records of train became several rows, 7 in all",
    ]
