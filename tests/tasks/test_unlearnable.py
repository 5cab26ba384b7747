"""A training set of which nothing can be learnt is refused; where some of it can, nothing is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tasks.causal import causal_task, talk
from tasks.pairs import record, task
from tasks.test_round_trip import unigram
from tiny_seq2seq import tiny_seq2seq
from tokenizers import processors

from bigft.data.prepare import prepare_split
from bigft.tasks.unlearnable import NO_TOKEN, unlearnable

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
