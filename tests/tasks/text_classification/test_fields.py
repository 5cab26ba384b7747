"""Every way to write texts and their labels ends in one form; what cannot be used is named."""

from __future__ import annotations

from typing import Any

import pytest

from bigft.config.errors import BadInput
from bigft.config.sections import DataConfig, RunConfig
from bigft.data.records import Record
from bigft.tasks.text_classification.fields import found_in, normalised, target_of


def records(*rows: dict[str, Any]) -> list[Record]:
    return [Record(at, row, "train.jsonl", at + 1) for at, row in enumerate(rows)]


def fields(row: dict[str, Any], **data: Any) -> dict[str, Any]:
    (record,) = records(row)
    return dict(normalised(record, DataConfig(**data)).fields)


def labelled(*labels: Any) -> list[Record]:
    return records(*({"text": "a", "label": label} for label in labels))


def found(*labels: Any, asked: Any = None, **data: Any) -> Any:
    return found_in(labelled(*labels), DataConfig(**data), asked)


def refusal(call: Any, *args: Any, **keys: Any) -> str:
    with pytest.raises(BadInput) as refused:
        call(*args, **keys)
    return str(refused.value)


# -- texts --------------------------------------------------------------------------------------


def test_usual_names_are_found_and_others_named() -> None:
    assert fields({"sentence": "a", "label": "x"}) == {"text": "a", "label": "x"}
    assert fields({"text": "a", "category": "x", "id": 4}) == {"text": "a", "label": "x"}
    pair = {"premise": "a", "hypothesis": "b", "label": 0}
    assert fields(pair) == {"text": "a", "pair": "b", "label": 0}
    asked = {"text_column_name": ("x", "y"), "label_column_name": "z"}
    assert fields({"x": "a", "y": "b", "z": 1.5}, **asked) == {
        "text": "a", "pair": "b", "label": 1.5
    }  # fmt: skip


def test_a_list_of_text_and_label_is_a_record() -> None:
    assert fields({"0": "how far", "1": "distance"}) == {"text": "how far", "label": "distance"}


def test_an_absent_field_is_named_with_the_nearest_one() -> None:
    message = refusal(fields, {"txt": "a", "label": "x"})
    assert message.startswith("train.jsonl:1: no field text or sentence or")
    assert "there are txt, label; name the field (data.text_column_name)" in message
    message = refusal(fields, {"text": "a", "label": "x"}, label_column_name="lable")
    assert "no field lable; there are text, label; did you mean label? (data.label" in message


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"text": " \n", "label": "x"}, "train.jsonl:1: the text in text is empty; write a text"),
        ({"text": 4, "label": "x"}, "train.jsonl:1: the field text is int, not a text"),
        ({"text": "a", "label": None}, "train.jsonl:1: no label in label; write a label, or"),
        ({"text": "a", "label": "  "}, "train.jsonl:1: no label in label; write a label, or"),
        ({"text": "a", "label": {"b": 1}}, "train.jsonl:1: the label in label is dict; write a"),
        ({"text": "a", "label": ["x", None]}, "train.jsonl:1: None in the list label is no label"),
        ({"text": "a", "label": float("nan")}, "train.jsonl:1: the label in label is nan"),
    ],
)
def test_what_is_no_text_or_no_label_is_refused_by_line(row: Any, expected: str) -> None:
    assert refusal(fields, row).startswith(expected)


def test_columns_of_zero_and_one_are_several_labels() -> None:
    asked = {"label_column_name": ("toxic", "rude")}
    row = {"text": "a", "toxic": "1", "rude": 0}
    assert fields(row, **asked)["label"] == {"toxic": 1, "rude": 0}
    assert fields(row | {"rude": None}, **asked)["label"] == {"toxic": 1, "rude": None}
    message = refusal(fields, row | {"rude": 2}, **asked)
    assert message.startswith("train.jsonl:1: 2 in the column rude, which is one label of several")


def test_a_group_is_kept_as_text() -> None:
    row = {"text": "a", "label": 1, "query": 7}
    assert fields(row, group_column_name="query")["group"] == "7"
    message = refusal(fields, row | {"query": None}, group_column_name="query")
    assert message.startswith("train.jsonl:1: the group None is no text or number")


def test_white_space_around_a_label_is_left_out_and_noted() -> None:
    (record,) = records({"text": "a", "label": " x "})
    one = normalised(record, DataConfig())
    assert one.fields["label"] == "x"
    assert one.notes == ("have labels with white space around them, which is left out",)


# -- what the labels are ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("labels", "problem_type", "names"),
    [
        (["b", "a", "b"], "single_label_classification", ["a", "b"]),
        (["10", "2", "1"], "single_label_classification", ["1", "2", "10"]),
        ([10, 2, 1], "single_label_classification", ["1", "2", "10"]),
        ([True, False], "single_label_classification", ["False", "True"]),
        ([["b"], ["a", "b"], []], "multi_label_classification", ["a", "b"]),
        ([{"z": 1, "a": 0}], "multi_label_classification", ["z", "a"]),
        ([0.5, 1, 2], "regression", ["score"]),
        (["0.5", "1", "-2e3"], "regression", ["score"]),
        ([1.0, 2.0], "regression", ["score"]),
    ],
)
def test_what_the_labels_are_is_found(labels: Any, problem_type: str, names: list[str]) -> None:
    what = found(*labels)
    assert (what.problem_type, what.labels) == (problem_type, names)


def test_the_names_of_the_config_come_first() -> None:
    assert found("b", "a", label_list=("b", "a", "c")).labels == ["b", "a", "c"]
    assert found(0.5, label_column_name="stars").labels == ["stars"]


def test_whole_numbers_can_be_asked_for_as_a_regression() -> None:
    assert found(1, 5, asked="regression").problem_type == "regression"
    message = refusal(found, "1", "good", asked="regression")
    assert message.startswith("train.jsonl:2: the label 'good' is no number; write numbers, or")


def test_labels_that_cannot_be_read_as_asked_are_refused() -> None:
    message = refusal(found, "a", "b", asked="multi_label_classification")
    assert message == (
        "task.problem_type: multi_label_classification, but each label is a text; set it to "
        "single_label_classification, or to auto"
    )


def test_a_mixed_column_is_refused_by_line() -> None:
    message = refusal(found, "a", "b", 3, ["c"])
    assert message.splitlines() == [
        "train.jsonl:3: the label 3 is an integer, where most are a text; write all labels alike",
        "train.jsonl:4: the label ['c'] is a list, where most are a text; write all labels alike",
    ]


# -- targets ------------------------------------------------------------------------------------


def test_targets_are_what_the_head_documents() -> None:
    ids = {"a": 0, "b": 1}

    def target(label: Any, problem_type: Any, are_given: bool = False) -> list[float]:
        return target_of(labelled(label)[0], problem_type, ids, are_given)

    assert target("b", "single_label_classification") == [1]
    assert target(1, "single_label_classification", are_given=True) == [1]
    assert target(["b"], "multi_label_classification") == [0, 1]
    assert target([], "multi_label_classification") == [0, 0]
    assert target({"a": None, "b": 1}, "multi_label_classification") == [-100, 1]
    assert target("2.5", "regression") == [2.5]
    assert refusal(target, "c", "single_label_classification").startswith(
        "train.jsonl:1: the label 'c' does not occur in the training data (a, b); "
    )
    assert refusal(target, 2, "single_label_classification", are_given=True).startswith(
        "train.jsonl:1: the label '2' is not in data.label_list (a, b)"
    )
    assert refusal(target, "high", "regression").startswith(
        "train.jsonl:1: the label 'high' is no number, as in the training data"
    )


# -- the config ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sections", "expected"),
    [
        ({"data": {"text_column_name": ["a", "b", "c"]}}, "3 columns: a model reads one text"),
        (
            {"optim": {"focal_gamma": 2.0, "label_smoothing_factor": 0.1}},
            "both given: a target whose share is spread has no one probability",
        ),
        (
            {"task": {"decision_threshold": "tune"}},
            "tune, but there is no validation set to choose it on",
        ),
        (
            {"task": {"problem_type": "regression", "out_of_scope_label": "oos"}},
            "given, but it has no meaning with regression",
        ),
        (
            {
                "task": {"problem_type": "multi_label_classification"},
                "optim": {"label_smoothing_factor": 0.1},
            },
            "given, but it has no meaning with multi_label_classification",
        ),
        (
            {"task": {"name": "causal-lm"}, "data": {"label_column_name": ["a", "b"]}},
            "a list of columns, but task causal-lm reads one",
        ),
        (
            {"task": {"name": "token-classification"}, "optim": {"focal_gamma": 1.0}},
            "given, but task token-classification has no use for it",
        ),
    ],
)
def test_contradictions_are_refused(sections: dict[str, Any], expected: str) -> None:
    from bigft.config.task_rules import task_contradictions

    given: dict[str, Any] = {
        "task": {"name": "text-classification"},
        "model": {"model_name_or_path": "unused"},
        "data": {"train_file": "a.jsonl"},
        "train": {"output_dir": "unused"},
    }
    for name, keys in sections.items():
        given[name] = given.get(name, {}) | keys
    config = RunConfig.model_validate(given)
    assert expected in next(clash.what for clash in task_contradictions(config))
