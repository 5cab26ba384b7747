"""Bad input of a masked-lm run is refused before training, by name and with the fix."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tiny import letter_tokenizer, tiny_model

Refused = Callable[..., list[str]]
CONFIG = """\
task: masked-lm
model: {model_name_or_path: model}
data:
  train_file: texts.jsonl
  max_seq_length: 16
train:
  output_dir: run
"""


@pytest.fixture
def place(here: Path) -> Path:
    """A run of a tiny BERT on two texts."""
    tiny_model("bert", "AutoModelForMaskedLM").save_pretrained("model")
    letter_tokenizer(mask_token="[MASK]").save_pretrained("model")
    Path("config.yaml").write_text(CONFIG)
    write({"text": "to be or not"}, {"text": "to be that is"})
    return here


def write(*rows: Any) -> None:
    Path("texts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_what_is_spoilt_here_is_accepted_as_it_is(notes: Callable[..., list[str]]) -> None:
    assert notes() == []


@pytest.mark.parametrize(
    ("row", "answer"),
    [
        ({"txt": "a"}, "texts.jsonl:2: no field 'text'; there are txt; did you mean txt?"),
        ({"body": "a", "id": 1},
         "texts.jsonl:2: no field 'text'; there are body, id; set data.text_column_name to the one "
         "of the text"),
        ({"text": ["a", "b"]},
         "texts.jsonl:2: 'text' is no string but [\"a\", \"b\"]; write a text, or set "
         "data.text_column_name to the field of the text"),
        ({"text": " \n"}, "texts.jsonl:2: 'text' is empty; delete the record"),
    ],
)  # fmt: skip
def test_a_record_that_cannot_be_used(refused: Refused, row: Any, answer: str) -> None:
    write({"text": "to be"}, row)
    assert refused() == [answer]


def test_a_record_that_cannot_be_used_may_be_dropped(notes: Callable[..., list[str]]) -> None:
    write({"text": "to be"}, {"text": ""}, {"text": "or not"})
    assert notes("data.on_bad_record=drop") == [
        "1 of 3 records of train are dropped (data.on_bad_record): texts.jsonl:2: 'text' is empty"
    ]


@pytest.mark.parametrize(
    ("overrides", "answer"),
    [
        (["task.mask_replace_prob=0.8", "task.random_replace_prob=0.3"],
         "command line: task.mask_replace_prob=0.8: 0.8 and task.random_replace_prob 0.3 are more "
         "than 1 together; what is left of 1 is the share of targets that the model sees as they "
         "are"),
        (["task.mlm_probability=1"],
         "command line: task.mlm_probability=1: found 1; it should be less than 1"),
        (["task.masking=words"],
         'command line: task.masking=words: found "words"; it should be \'token\' or '
         "'whole_word'"),
        (["data.label_column_name=label"],
         "command line: data.label_column_name=label: given, but task masked-lm learns from texts "
         "alone; leave it out"),
        (["data.packing=true"],
         "command line: data.packing=true: given, but task masked-lm has no use for it; leave it "
         "out, or train a causal-lm"),
        (["data.max_seq_length=2"],
         "command line: data.max_seq_length=2: 2 tokens, of which 2 are special; give 3 or more"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_had(refused: Refused, overrides: list[str], answer: str) -> None:
    assert refused(*overrides) == [answer]


def test_a_tokenizer_without_a_mask_token(refused: Refused, place: Path) -> None:
    letter_tokenizer().save_pretrained("model")
    assert refused() == [
        "config.yaml:2: model.model_name_or_path: the tokenizer of model has no mask token; add "
        '"mask_token" to its tokenizer_config.json or name another one in model.tokenizer_name'
    ]


def test_texts_of_a_script_that_the_tokenizer_does_not_know(refused: Refused) -> None:
    write({"text": "\u4f60\u597d"}, {"text": "\u518d\u89c1"})
    assert refused() == [
        "config.yaml:2: model.model_name_or_path: the tokenizer has no token for any letter of the "
        "texts: the model would see unknown tokens only, in all 2 records of train (first "
        "texts.jsonl:1); choose a model whose tokenizer knows the script of the texts"
    ]


# -- the model of another run ---------------------------------------------------------------------


def test_a_run_that_has_left_no_model_yet(refused: Refused) -> None:
    Path("other").mkdir()
    Path("other/run.json").write_text("{}")
    assert refused("model.model_name_or_path=other") == [
        "command line: model.model_name_or_path=other: the run other has left no model/ yet; let "
        "it finish (`bigft status other` says how it stands), or name another model"
    ]


def test_a_run_that_left_an_adapter(refused: Refused) -> None:
    Path("other").mkdir()
    Path("other/run.json").write_text("{}")
    Path("model").rename("other/model")
    Path("other/model/adapter_config.json").write_text("{}")
    assert refused("model.model_name_or_path=other") == [
        "command line: model.model_name_or_path=other: the run other left an adapter, not a whole "
        "model; merge it into its base, `bigft export other --merge`, and name other/merged"
    ]


def test_an_adapter_on_a_head_that_is_new_is_refused_and_one_that_trains_it_is_not(
    refused: Refused, notes: Callable[..., list[str]]
) -> None:
    body = tiny_model("bert", "AutoModel")  # without a head for masked tokens
    body.save_pretrained("model")
    assert refused("adapt.method=lora") == [
        "command line: adapt.method=lora: it would leave cls.predictions.transform.dense.weight as "
        "it is, which is new, with random values; train the whole model first (adapt.method full), "
        "or take one whose files hold it"
    ]
    assert notes("adapt={method: lora, modules_to_save: [transform]}")[0].startswith("new, with")
    assert notes("adapt.method=full")[0].startswith("new, with random values")
