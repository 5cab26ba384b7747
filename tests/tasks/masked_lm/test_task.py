"""Texts to rows to batches: each a row or joined, masked, and how a run is told of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tasks.masked import CLS, SEP, masked_task, texts
from tiny import byte_tokenizer, letter_tokenizer, tiny_model
from torch.nn import functional as F

from bigft.config.errors import BadInput
from bigft.data import prepare
from bigft.data.records import IGNORE_INDEX, Note, Row
from bigft.data.split import PreparedSplit
from bigft.runtime.seeding import address
from bigft.tasks.unlearnable import NO_INPUT, UNKNOWN_INPUT, unlearnable


def tokens(one: Any, row: Row) -> str:
    names = one._tokenizer.convert_ids_to_tokens(row.columns["input_ids"])
    return " ".join(name.removeprefix("##") for name in names)


def split_of(directory: Path, one: Any, *lines: str) -> PreparedSplit:
    return prepare.prepare_split(directory, "train", texts(*lines), one.encode_all, 1)


# -- rows -----------------------------------------------------------------------------------------


def test_line_by_line_each_text_is_a_row_cut_where_it_is_too_long() -> None:
    one = masked_task(max_length=6, line_by_line=True)
    encoded = list(one.encode_all(texts("abc", "abcdef")))
    (short,), (long, note) = encoded
    assert tokens(one, short) == "[CLS] a b c [SEP]"
    assert tokens(one, long) == "[CLS] a b c d [SEP]"
    assert (long.record, long.window, long.num_windows, long.length) == (1, 0, 1, 6)
    assert (short.num_targets, long.num_targets) == (3, 4)  # at most: no special token is one
    assert note == Note(
        1,
        "are cut at 6 tokens: data.max_seq_length; task.line_by_line: false would put the rest "
        "into further rows",
    )


def test_joined_texts_fill_rows_that_belong_to_the_record_that_begins_them(tmp_path: Path) -> None:
    one = masked_task(max_length=8)
    split = split_of(tmp_path, one, "abc", "de", "f", "ghijklmnop", "qr")
    rows = [split.row(number) for number in range(len(split))]
    assert [tokens(one, row) for row in rows] == [
        "[CLS] a b c [SEP] d e [SEP]",
        "[CLS] f [SEP] g h i j [SEP]",
        "[CLS] k l m n o p [SEP]",
        "[CLS] q r [SEP]",
    ]
    assert [(row.record, row.window, row.num_windows) for row in rows] == [
        (0, 0, 1),
        (2, 0, 1),
        (3, 0, 1),
        (4, 0, 1),
    ]
    assert [row.num_targets for row in rows] == [5, 5, 6, 2]
    assert split.num_records == 5
    assert split.record(2).where == "a.txt:3"


def test_a_document_that_begins_several_rows_owns_them_all() -> None:
    one = masked_task(max_length=5)
    encoded = list(one.encode_all(texts("a", "bcdefghi", "l")))
    assert [[(row.window, row.num_windows) for row in rows] for rows in encoded] == [
        [(0, 1)],
        [(0, 3), (1, 3), (2, 3)],
        [],
    ]


def test_whole_words_are_known_in_every_row() -> None:
    one = masked_task(max_length=8, masking="whole_word")
    first, second = [row for rows in one.encode_all(texts("ab cd", "efg")) for row in rows]
    assert tokens(one, first) == "[CLS] a b c d [SEP] e [SEP]"
    assert first.columns["continues"] == [0, 0, 1, 0, 1, 0, 0, 0]
    assert second.columns["continues"] == [0, 1, 1, 0]


def test_a_frame_is_what_the_tokenizer_puts_around_a_text() -> None:
    tokenizer = byte_tokenizer(mask_token="<mask>")
    (row,) = masked_task(tokenizer, max_length=32).encode(texts("ab")[0])
    assert row.columns["input_ids"] == tokenizer("ab")["input_ids"]


def test_what_the_tokenizer_does_not_know_is_noted_with_its_own_record(tmp_path: Path) -> None:
    one = masked_task(max_length=32)
    split = split_of(tmp_path, one, "ab", "a \u2603", "\u4f60\u597d", "c")
    found = {note: (count, first.where) for note, (count, first) in split.notes().items()}
    assert found == {UNKNOWN_INPUT: (1, "a.txt:2"), NO_INPUT: (1, "a.txt:3")}
    assert list(unlearnable(split)) == []
    assert split.row(0).num_targets == 4  # an unknown token is no target


@pytest.mark.parametrize("line_by_line", [False, True])
def test_texts_of_unknown_tokens_alone_are_refused(tmp_path: Path, line_by_line: bool) -> None:
    one = masked_task(max_length=8, line_by_line=line_by_line)
    split = split_of(tmp_path, one, "\u4f60\u597d", "\u4f60", "\u597d")
    (problem,) = unlearnable(split)
    assert "the model would see unknown tokens only, in all 3 records of train" in str(problem)


# -- batches --------------------------------------------------------------------------------------


def drawn(row: Row, *draws: int) -> list[Row]:
    return [replace(row, draw=address(draw)) for draw in draws]


def test_a_batch_is_masked_as_the_draws_say_and_counts_what_was_drawn() -> None:
    one = masked_task(max_length=None, line_by_line=True, mlm_probability=0.5)
    rows = [one.encode(record)[0] for record in texts("abcdefgh" * 4, "abc")]
    batch = one.collate([*drawn(rows[0], 1, 2), *drawn(rows[1], 3)])
    ids_BT = np.array([row.columns["input_ids"] for row in (rows[0], rows[0])])
    labels_BT = batch.labels.numpy()
    targets_BT = labels_BT != IGNORE_INDEX
    assert (labels_BT[:2][targets_BT[:2]] == ids_BT[targets_BT[:2]]).all()
    assert batch.num_targets == targets_BT.sum() == len(batch.target_rows_M)
    assert not targets_BT[:, 0].any()
    assert batch.inputs["input_ids"][2, 5:].tolist() == [0] * 29
    assert batch.inputs["attention_mask"].sum(dim=1).tolist() == [34, 34, 5]
    assert targets_BT[0].tolist() != targets_BT[1].tolist()
    again = one.collate(drawn(rows[0], 2))
    assert again.inputs["input_ids"][0].tolist() == batch.inputs["input_ids"][1].tolist()


def test_a_random_token_is_never_a_special_one() -> None:
    tokenizer = letter_tokenizer(mask_token="[MASK]")
    special = {*tokenizer.all_special_ids}
    options = {"mlm_probability": 0.9, "mask_replace_prob": 0.0, "random_replace_prob": 1.0}
    one = masked_task(tokenizer, None, line_by_line=True, **options)
    (row,) = one.encode(texts("a " * 2000)[0])
    seen = one.collate(drawn(row, 1)).inputs["input_ids"][0, 1:-1].tolist()
    assert {*seen} == {*tokenizer.get_vocab().values()} - special


def test_a_special_token_that_a_text_spells_is_never_masked() -> None:
    one = masked_task(max_length=None, line_by_line=True, mlm_probability=0.9)
    (row,) = one.encode(texts("a [MASK] b " * 50)[0])
    mask = one._tokenizer.mask_token_id
    assert row.columns["input_ids"].count(mask) == 50
    assert row.num_targets == 100
    assert mask not in one.collate(drawn(row, 1, 2)).labels.tolist()[0]


# -- model ----------------------------------------------------------------------------------------


def test_loss_and_scores_are_those_of_plain_transformers_at_the_masked_tokens() -> None:
    one = masked_task(max_length=12, mlm_probability=0.4)
    rows = [row for rows in one.encode_all(texts("abcde", "fgh", "ijklmnopq")) for row in rows]
    batch = one.collate([replace(row, draw=address(n)) for n, row in enumerate(rows)])
    model, plain = (tiny_model("bert", "AutoModelForMaskedLM").double() for _ in range(2))
    one.attach_head(model)
    with torch.no_grad():
        predicted = one.predict(model, batch)
        logits_BTV = plain(**batch.inputs).logits
    labels_N = batch.labels.flatten()
    loss_N = F.cross_entropy(logits_BTV.flatten(0, 1), labels_N, reduction="none")
    assert predicted.loss_sum.item() == pytest.approx(loss_N.sum().item(), rel=1e-6)
    metric = one.metric()
    for part, row in zip(predicted.parts, rows, strict=True):
        metric.update([one.stitch([part], texts("x")[0])], [])
        assert row.num_targets >= part["targets"]
    targets = int((labels_N != IGNORE_INDEX).sum())
    right = (logits_BTV.argmax(dim=-1) == batch.labels) & (batch.labels != IGNORE_INDEX)
    assert metric.compute() == {
        "perplexity": pytest.approx(float((loss_N.sum() / targets).exp()), rel=1e-6),
        "masked_lm_accuracy": int(right.sum()) / targets,
    }
    assert f"({targets} masked tokens)" in metric.report()
    assert one.uniform_loss() == pytest.approx(np.log(57))


def test_check_shows_one_draw_and_says_about_how_many_targets_there_are(tmp_path: Path) -> None:
    one = masked_task(max_length=32, mlm_probability=0.2)
    split = split_of(tmp_path, one, "abcdefghij" * 2, "klmno" * 2)
    assert one.targets(split) == ("about 6 targets, drawn anew whenever a row is trained on")
    pieces = one.preview(split.row(0))
    assert " ".join(text for text, _ in pieces).startswith("[CLS] a ##b")
    assert {is_target for _, is_target in pieces} == {True, False}


# -- options that cannot be had -------------------------------------------------------------------


class _Slow:
    """A tokenizer that cannot tell where tokens stand."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer, self.is_fast = tokenizer, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def __call__(self, *args: Any, **options: Any) -> Any:
        return self._tokenizer(*args, **options)


@pytest.mark.parametrize(
    ("tokenizer", "max_length", "options", "answer"),
    [
        (None, 2, {}, "data.max_seq_length: 2 tokens, of which 2 are special; give 3 or more"),
        (None, None, {}, "data.max_seq_length: not given, but neither model nor tokenizer says how "
         "long a row may be; give it (512, for example), or set task.line_by_line to true"),
        (_Slow(letter_tokenizer(mask_token="[MASK]")), 8, {"masking": "whole_word"},
         "task.masking: whole_word, but the tokenizer is a slow one, which cannot tell words; set "
         "it to token, or model.tokenizer_name to one with a tokenizer.json"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_had_are_refused(
    tokenizer: Any, max_length: int | None, options: dict[str, Any], answer: str
) -> None:
    with pytest.raises(BadInput) as refused:
        masked_task(tokenizer, max_length, **options)
    assert str(refused.value) == answer


def test_texts_cannot_be_joined_without_a_token_between_them() -> None:
    tokenizer = letter_tokenizer(mask_token="[MASK]")
    tokenizer.sep_token = None
    tokenizer.backend_tokenizer.post_processor = None
    with pytest.raises(BadInput) as refused:
        masked_task(tokenizer)
    assert str(refused.value) == (
        "task.line_by_line: false, but the tokenizer has no token to put between two texts (sep or "
        "eos); set it to true"
    )
    (row,) = masked_task(tokenizer, line_by_line=True).encode(texts("ab")[0])
    assert row.length == 2
    assert {CLS, SEP}.isdisjoint(row.columns["input_ids"])
