"""A training set of which nothing can be learnt is refused; where some of it can, nothing is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from prepared import prepare_split
from tasks.causal import causal_task, talk
from tasks.pairs import record, task
from tasks.test_round_trip import unigram
from tiny import LABELS, letter_tokenizer
from tiny_seq2seq import tiny_seq2seq
from tokenizers import processors

from bigft.config.load import load_config
from bigft.data.records import Record
from bigft.models.limits import Limit
from bigft.tasks.protocol import Setting
from bigft.tasks.token_classification import TokenClassification
from bigft.tasks.unlearnable import NO_INPUT, NO_TOKEN, UNKNOWN_INPUT, unlearnable

CHINESE = "\u4f60\u597d, \u4f60."


def t5_tokenizer() -> Any:
    tokenizer = unigram()
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return tokenizer


def told(directory: Path, one: Any, records: list[Any]) -> tuple[list[str], int]:
    """Why nothing can be learnt, and how many records are noted."""
    directory.mkdir()
    split = prepare_split(directory, "train", records, one.encode, 1)
    count, _ = split.notes().get(NO_TOKEN, (0, None))
    return [str(problem) for problem in unlearnable(split)], count


@pytest.mark.parametrize("task_name", ["seq2seq", "causal-lm", "text"])
def test_targets_of_unknown_tokens_alone_are_refused_where_they_are_all(
    task_name: str, tmp_path: Path
) -> None:
    if task_name == "seq2seq":
        one: Any = task(t5_tokenizer(), tiny_seq2seq())
        unknown, known = record("hello", CHINESE, 0), record("hello", f"{CHINESE} a", 1)
    elif task_name == "text":
        one = causal_task(tokenizer=unigram(), template=None)
        unknown, known = record("", "", 0), record("", "", 1)
        for each, text in ((unknown, CHINESE), (known, "a")):
            each.fields.clear()  # type: ignore[attr-defined]
            each.fields["text"] = text  # type: ignore[index]
    else:
        one = causal_task(tokenizer=unigram(), template=None)
        unknown = talk("a", CHINESE, "b", CHINESE, index=0, form="prompt")
        known = talk("a", CHINESE, "b", "c", index=1, form="prompt")
    where = f"in all 1 records of train (first {unknown.where})"
    assert told(tmp_path / "all", one, [unknown]) == (
        [
            "model.model_name_or_path: the tokenizer has no token for any letter of the targets: "
            f"only unknown tokens could be learnt, {where}; choose a model whose tokenizer knows "
            "the script of the targets"
        ],
        1,
    )
    assert told(tmp_path / "some", one, [unknown, known]) == ([], 1)


def test_sources_of_unknown_tokens_alone_are_refused_where_they_are_all(tmp_path: Path) -> None:
    one = task(t5_tokenizer(), tiny_seq2seq())
    unknown, known = record(CHINESE, "hello", 0), record(f"{CHINESE} a", "hello", 1)
    (why,), _ = told(tmp_path / "all", one, [unknown])
    assert why.startswith("model.model_name_or_path: the tokenizer has no token for any letter of ")
    assert "in all 1 records of train (first " in why
    assert told(tmp_path / "some", one, [unknown, known])[0] == []
    notes = [one.encode(each)[0].notes for each in (unknown, known, record("a", "hello", 2))]
    assert [NO_INPUT in each for each in notes] == [True, False, False]
    assert [UNKNOWN_INPUT in each for each in notes] == [False, True, False]


def test_a_target_that_is_its_source_is_noted() -> None:
    one = task(t5_tokenizer(), tiny_seq2seq())
    (same,), (other,) = one.encode(record("a", "a", 0)), one.encode(record("a", "hello", 1))
    assert "have a target that is their source" in same.notes
    assert not any("their source" in note for note in other.notes)


def test_words_of_which_none_is_known_are_refused_where_they_are_all(tmp_path: Path) -> None:
    one = words_task()
    unknown, known = words_record(0, "\u4f60", "."), words_record(1, "\u4f60", "a")
    (why,), _ = told(tmp_path / "all", one, [unknown])
    assert why.startswith("model.model_name_or_path: the tokenizer has no token for any letter of ")
    assert told(tmp_path / "some", one, [unknown, known])[0] == []
    assert one.encode(known)[0].notes == (UNKNOWN_INPUT,)
    assert one.encode(words_record(2, "a", "b"))[0].notes == ()


def words_task() -> Any:
    config = load_config(None, ["task=token-classification", "model.model_name_or_path=m",
                                "data.train_file=t", "train.output_dir=out"]).config  # fmt: skip
    return TokenClassification(Setting(config, letter_tokenizer(), LABELS, Limit(16, "")))


def words_record(index: int, *words: str) -> Record:
    return Record(index, {"tokens": list(words), "tags": ["O"] * len(words)}, "a.conll", index + 1)


def test_targets_are_cut_at_the_right_whatever_the_tokenizer_says() -> None:
    tokenizer = t5_tokenizer()
    tokenizer.truncation_side = "left"
    one = task(tokenizer, tiny_seq2seq(), max_target_length=3)
    whole = tokenizer(text_target="hello a hello a").input_ids
    (row,) = one.encode(record("a", "hello a hello a", 0))
    assert row.columns["labels"] == [*whole[:2], whole[-1]]
    assert tokenizer.truncation_side == "left"
