"""`bigft init` on published data sets: a config that is accepted, or why there is none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.real

RealData = Callable[[str], Path]
FEW = ("data.max_train_samples=200", "data.max_eval_samples=50")
NUMBERS = {"text_column_name": 1, "label_column_name": 2}


@pytest.mark.parametrize(
    ("name", "task", "splits", "keys"),
    [
        ("wnut17", "token-classification", 3, {}),
        ("broad_twitter_corpus", "token-classification", 3, {}),
        ("ncbi_disease", "token-classification", 3, {}),
        ("wikigold", "token-classification", 1, {}),
        ("ud_english_ewt", "token-classification", 3, {}),
        ("uner_chinese_gsdsimp", "token-classification", 3, NUMBERS),
        ("uner_english_ewt/en_ewt-ud-dev.iob2", "token-classification", 1, NUMBERS),
        ("tatoeba_en_zh", "seq2seq", 1,
         {"format": "tsv", "text_column_name": 0, "label_column_name": 1}),
        ("self_instruct/seed_tasks.jsonl", "causal-lm", 1, {}),
        ("self_instruct/user_oriented_instructions.jsonl", "causal-lm", 1, {}),
        ("gsm8k", "causal-lm", 2, {"text_column_name": "question", "label_column_name": "answer"}),
        ("tinyshakespeare", "causal-lm", 1, {}),
        ("banking77", "text-classification", 2, {}),
        ("sib200/eng_Latn", "text-classification", 3, {}),
        ("xquad/xquad.en.json", "question-answering", 1, {}),
        ("xquad/xquad.zh.json", "question-answering", 1, {}),
    ],
)  # fmt: skip
def test_what_a_task_can_read_gets_a_config_that_is_accepted(
    real_data: RealData,
    accepted: Callable[..., dict[str, Any]],
    name: str,
    task: str,
    splits: int,
    keys: dict[str, Any],
) -> None:
    folder, _, file = name.partition("/")
    config = accepted(str(real_data(folder) / file), check=FEW)
    assert config["task"] == task
    files = {key for key in config["data"] if key.endswith("_file")}
    assert len(files) == splits
    assert {key: config["data"][key] for key in config["data"].keys() - files} == keys


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("sib200", "no data file, but folders: eng_Latn, zho_Hans"),
        ("clinc150", "2 files, none of them named for a split: data_full.json, domains.json"),
        ("clinc150/data_full.json", "data_full.json#oos_test"),
        ("self_instruct", "name the file to train on: bigft init"),
        ("uner_english_ewt", "nothing to train on (validation: en_ewt-ud-dev.iob2, test: "),
        ("sign_language_digits", "image-classification is not available yet"),
    ],
)
def test_what_no_task_can_read_is_explained(
    real_data: RealData, refused: Callable[..., list[str]], name: str, said: str
) -> None:
    folder, _, file = name.partition("/")
    assert said in refused(str(real_data(folder) / file))[0]


def test_records_that_cannot_be_used_may_be_dropped(
    real_data: RealData, accepted: Callable[..., dict[str, Any]]
) -> None:
    """Of CMRC 2018 five answers stand elsewhere; `check` names them, or drops them where told."""
    folder = str(real_data("cmrc2018"))
    with pytest.raises(AssertionError, match="question TRIAL_210_QUERY_0: the answer"):
        accepted(folder, check=FEW)
    config = accepted(folder, "data.on_bad_record=drop", check=FEW)
    assert config["task"] == "question-answering"
    assert config["data"]["on_bad_record"] == "drop"
