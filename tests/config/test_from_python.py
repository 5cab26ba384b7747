"""Python values in the words of the command line, which read as the same values."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bigft.config.errors import BadInput
from bigft.config.from_python import words_of
from bigft.config.load import load_config
from bigft.config.yaml_text import one_line, parse


class Strategy(str, Enum):  # noqa: UP042
    """As transformers has them."""

    EPOCH = "epoch"


@pytest.mark.parametrize(
    "value",
    [
        *("", "yes", "no", "null", "~", "1e-5", "1", "0x1", "a: b", "a, b", "#x", " x ", "- x"),
        *("[a]", "{b}", "'q'", '"q"', "!tag", "&a", "*b", "%d", "@x", "...", "---", ":", "a]b"),
        *("two\nlines\n\nx\n", "x\r\n", "tab\t", "\x7f", "\u2028", "\x85", "é😀", "y z " * 200),
        *(None, True, False, 0, -2, 1e-5, 1e300, [], {}),
        {"a": {"b: c": [None, "1", ["x, y"]]}},
    ],
    ids=repr,
)
def test_a_value_is_one_line_that_reads_as_the_same_value(value: Any) -> None:
    text = one_line(value)
    assert "\n" not in text
    assert parse(text, str, [])[0] == value


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (Path("a/b"), "a/b"),
        (("a", Path("b")), ["a", "b"]),
        (np.float64(1e-4), 1e-4),
        (np.int64(3), 3),
        (Strategy.EPOCH, "epoch"),
        ({"a": (1,)}, {"a": [1]}),
    ],
    ids=repr,
)
def test_values_of_other_types_are_what_yaml_has_for_them(value: Any, read: Any) -> None:
    (word,) = words_of({"a.b": value}, "config")
    assert parse(word.removeprefix("a.b="), str, [])[0] == read


def test_sections_may_be_nested_or_dotted() -> None:
    nested = {"train": {"output_dir": "out", "seed": 3}, "task": "causal-lm", "data": {}}
    assert words_of(nested, "config") == ["train.output_dir=out", "train.seed=3", "task=causal-lm"]
    assert words_of({"train.seed": 3}, "config") == ["train.seed=3"]


def test_values_without_a_form_in_yaml_are_refused_together() -> None:
    with pytest.raises(BadInput) as refused:
        words_of({"train": {"seed": {1}}, "optim.optim": object}, "bigft.train")
    assert [str(problem).partition(";")[0] for problem in refused.value.problems] == [
        "bigft.train: train.seed: found {1} of type set",
        "bigft.train: optim.optim: found <class 'object'> of type type",
    ]


def test_the_words_load_to_the_config_of_the_file(tmp_path: Path) -> None:
    values = {
        "task": {"name": "token-classification"},
        "model": {"model_name_or_path": "m", "config_overrides": {"hidden_size": 3}},
        "data": {"train_file": ["a.jsonl"]},
        "optim": {"learning_rate": 1e-5, "class_weights": {"no": 1.0, "1": 2}},
        "train": {"output_dir": "it's: #1"},
    }
    file = tmp_path / "config.yaml"
    file.write_text(one_line(values))
    assert load_config(None, words_of(values, "config")).config == load_config(str(file)).config
