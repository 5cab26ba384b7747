"""Questions in the one form, and what is refused by file, line and id."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import pytest
from tasks.questions import config

from bigft.config.errors import BadInput
from bigft.data.formats import ReadOptions, read_records
from bigft.data.records import Record
from bigft.tasks.question_answering.fields import SEVERAL, Columns, questions

CONTEXT = "Ulm lies on the Danube."
PAIR = {"id": "a", "question": "Where?", "context": CONTEXT}
GOLD = {"text": "the Danube", "answer_start": 12}


def read(
    *rows: dict[str, Any], split: str = "train", notes: list[str] | None = None, **keys: Any
) -> list[Record]:
    records = [Record(at, row, "a.json", at + 1) for at, row in enumerate(rows)]
    return list(questions(iter(records), config(**keys), split, notes))


def refusal(*rows: dict[str, Any], **keys: Any) -> str:
    with pytest.raises(BadInput) as caught:
        read(*rows, **keys)
    return str(caught.value)


@pytest.mark.parametrize(
    "answers",
    [[GOLD], {"text": ["the Danube"], "answer_start": [12]}, GOLD, [GOLD | {"answer_id": 7}]],
)
def test_answers_may_be_a_list_or_an_object_of_lists(answers: Any) -> None:
    (record,) = read(PAIR | {"answers": answers, "title": "x", "is_impossible": False})
    assert record.fields == PAIR | {"answers": [GOLD]}


def test_a_question_without_an_id_has_its_number() -> None:
    row = {name: PAIR[name] for name in ("question", "context")} | {"answers": [GOLD]}
    assert [record.fields["id"] for record in read(row, row | {"id": 7}, row)] == ["0", "7", "2"]


def test_a_question_may_have_no_answer_where_the_config_says_so() -> None:
    rows = [PAIR | {"answers": []}, PAIR | {"id": "b", "answers": {"text": [], "answer_start": []}}]
    found = read(*rows, version_2_with_negative=True)
    assert [record.fields["answers"] for record in found] == [[], []]
    fix = "set task.version_2_with_negative to true if questions may have none"
    assert refusal(rows[0]) == f"a.json:1: question a: it has no answer; {fix}"


def test_offsets_count_characters() -> None:
    context = "\U0001f30a Donau, Zürich"
    row = PAIR | {"context": context, "answers": [{"text": "Zürich", "answer_start": 9}]}
    (record,) = read(row)
    assert record.fields["answers"][0]["answer_start"] == 9
    row["answers"] = [{"text": "Zürich", "answer_start": 12}]  # bytes
    assert "it stands at 9" in refusal(row)


DROP = "correct it, or set data.on_bad_record to drop"
LAYOUT = 'write "answers": {"text": ["..."], "answer_start": [0]}'


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"answers": [{"text": "the Danube", "answer_start": 11}]},
            'question a: the answer "the Danube" does not stand at character 11 of the context '
            f'(" the Danub"); it stands at 12: {DROP}',
        ),
        (
            {"answers": [GOLD, {"text": "Rhine", "answer_start": 500}]},
            'question a: the answer "Rhine" does not stand at character 500 of the context '
            f"(nothing does); {DROP}",
        ),
        (
            {"answers": [{"text": "Ulm", "answer_start": -23}]},
            'question a: the answer "Ulm" does not stand at character -23 of the context '
            f"(nothing does); it stands at 0: {DROP}",
        ),
        ({}, f"question a: no field 'answers'; {LAYOUT}, or [] where there is none"),
        ({"answer": []}, "question a: no field 'answers'; did you mean answer?"),
        ({"answers": {"text": "x" * 80}},
         f'question a: the answer_start of "{"x" * 59}... is no whole number but null; {LAYOUT}'),
        ({"answers": None}, f"question a: answers is null; {LAYOUT}"),
        (
            {"answers": ["Ulm"]},
            'question a: the answer "Ulm" says not where in the context it stands; ' + LAYOUT,
        ),
        ({"answers": [3]}, f"question a: an answer is 3; {LAYOUT}"),
        ({"answers": {"text": ["a"]}},
         f"question a: answers has not as many answer_start as text; {LAYOUT}"),
        (
            {"answers": {"text": ["a", "b"], "answer_start": [1]}},
            f"question a: answers has not as many answer_start as text; {LAYOUT}",
        ),
        (
            {"answers": [{"text": "Ulm", "answer_start": "0"}]},
            f'question a: the answer_start of "Ulm" is no whole number but "0"; {LAYOUT}',
        ),
        (
            {"answers": [{"text": "Ulm", "answer_start": True}]},
            f'question a: the answer_start of "Ulm" is no whole number but true; {LAYOUT}',
        ),
        ({"answers": [{"answer_start": 1}]},
         f"question a: the text of an answer is null; {LAYOUT}"),
        (
            {"answers": [{"text": " ", "answer_start": 3}]},
            "question a: an answer is empty; write [] for a question without an answer",
        ),
        (
            {"answers": [GOLD], "is_impossible": True},
            "question a: it has answers, but is_impossible is true; correct one of them",
        ),
        ({"context": " \n", "answers": []},
         "question a: the context is empty; write one, or leave the record out"),
        ({"question": 5, "answers": []}, "question a: the question is no text but 5; write a text"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused(fields: dict[str, Any], message: str) -> None:
    assert refusal(PAIR | fields, version_2_with_negative=True) == f"a.json:1: {message}"


def test_a_missing_field_names_those_that_are_there() -> None:
    row = {"qestion": "Where?", "context": CONTEXT, "answers": [GOLD]}
    assert refusal(row) == (
        "a.json:1: no field 'question'; there are qestion, context, answers; did you mean qestion?"
    )


def test_an_id_stands_once_in_a_file() -> None:
    row = PAIR | {"answers": [GOLD]}
    assert refusal(row, row) == (
        "a.json:2: question a: its id is also that of a.json:1; give each question its own id"
    )
    records = [Record(at, row, file, 1) for at, file in enumerate(("a.json", "b.json"))]
    assert len([*questions(iter(records), config(), "train")]) == 2


def test_records_that_cannot_be_used_may_be_dropped_and_are_named() -> None:
    wrong = PAIR | {"id": "b", "answers": [{"text": "Ulm", "answer_start": 1}]}
    rows = [PAIR | {"answers": [GOLD]}, wrong, PAIR | {"id": "c", "answers": [GOLD]}]
    notes: list[str] = []
    found = read(*rows, data={"on_bad_record": "drop"}, notes=notes)
    assert [(record.index, record.fields["id"]) for record in found] == [(0, "a"), (1, "c")]
    assert notes == [
        "1 of 3 records of train are dropped (data.on_bad_record): a.json:2: question b: the answer"
        ' "Ulm" does not stand at character 1 of the context ("lm ")'
    ]


def test_several_answers_are_noted_where_one_is_trained_on() -> None:
    row = PAIR | {"answers": [GOLD, {"text": "Danube", "answer_start": 16}]}
    assert read(row)[0].notes == (SEVERAL,)
    assert read(row, split="test")[0].notes == ()
    assert read(PAIR | {"answers": [GOLD, GOLD]})[0].notes == ()


def test_columns_may_be_named() -> None:
    row = {"q": "Where?", "paragraph": CONTEXT, "gold": [GOLD], "context": 7}
    names = {"text_column_name": ["q", "paragraph"], "label_column_name": "gold"}
    (record,) = read(row, data=names)
    assert record.fields == {**PAIR, "id": "0", "answers": [GOLD]}
    assert refusal({"p": CONTEXT}, data=names) == (
        'a.json:1: no field \'q\'; there are p; write {"q": "...", "paragraph": "..."}'
    )


@pytest.mark.parametrize("form", ["jsonl", "parquet", "datasets"])
def test_tables_hold_the_same_questions(tmp_path: Path, form: str) -> None:
    """Answers as `datasets` has SQuAD's: lists of texts and of places, both empty for none."""
    rows = [
        PAIR | {"answers": {"text": ["the Danube", "Ulm"], "answer_start": [12, 0]}},
        PAIR | {"id": "b", "answers": {"text": [], "answer_start": []}},
    ]
    table, path = datasets.Dataset.from_list(rows), str(tmp_path / "table")
    write = {"jsonl": table.to_json, "parquet": table.to_parquet, "datasets": table.save_to_disk}
    write[form](path)
    records = read_records([path], ReadOptions(columns=Columns().all))
    found = questions(records, config(version_2_with_negative=True), "test")
    assert [record.fields for record in found] == [
        PAIR | {"answers": [GOLD, {"text": "Ulm", "answer_start": 0}]},
        PAIR | {"id": "b", "answers": []},
    ]


@pytest.mark.real
def test_the_wrong_offsets_of_cmrc2018_are_found(real_data: Callable[[str], Path]) -> None:
    path = str(real_data("cmrc2018") / "cmrc2018_trial.json")
    records = read_records([path], ReadOptions())
    with pytest.raises(BadInput) as caught:
        list(questions(records, config(), "train"))
    first, *_, last = str(caught.value).splitlines()
    assert len(str(caught.value).splitlines()) == 7
    assert first == (
        f'{path}:1466: question TRIAL_210_QUERY_0: the answer "俗名龙尖" does not stand at '
        f'character 14 of the context ("名龙尖，"); it stands at 13: {DROP}'
    )
    assert ": the question is empty" in last
    notes: list[str] = []
    dropping = config(data={"on_bad_record": "drop"})
    assert len([*questions(records, dropping, "train", notes)]) == 995
    assert notes[0].startswith(
        f"7 of 1002 records of train are dropped (data.on_bad_record): {path}"
    )
