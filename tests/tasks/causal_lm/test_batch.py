"""Rows of a language model as tensors: what a packed row holds, and that it leaks nothing."""

from __future__ import annotations

import pytest
import torch
from tasks.causal import VOCABULARY, causal_model

from bigft.data.packing import join
from bigft.data.records import IGNORE_INDEX, Row
from bigft.models.heads.lm import attach_lm_head
from bigft.tasks.causal_lm.batch import collate
from bigft.tasks.text_rows import text_row

PAD = 9


def feature(length: int, first: int = 10, record: int = 0) -> Row:
    """Every second token is a target."""
    ids = [first + n for n in range(length)]
    following = [*ids[1:], IGNORE_INDEX]
    labels = [label if n % 2 else IGNORE_INDEX for n, label in enumerate(following)]
    labels[-1] = IGNORE_INDEX
    return text_row(record, 0, 1, ids, labels)


def test_rows_are_padded_at_the_right_and_masked() -> None:
    rows = [feature(2), feature(4, 20)]
    batch = collate(rows, PAD)
    assert sorted(batch.inputs) == ["attention_mask", "input_ids"]
    assert batch.inputs["input_ids"].tolist() == [[10, 11, PAD, PAD], [20, 21, 22, 23]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert batch.labels.tolist() == [[-100] * 4, [-100, 22, -100, -100]]
    assert batch.target_rows_M.tolist() == [5]
    assert (batch.num_targets, batch.size, batch.rows) == (1, 6, rows)


def test_positions_of_packed_rows_restart_in_every_sample_and_in_the_padding() -> None:
    rows = [join([feature(3), feature(2, 20)]), join([feature(4, 30)]), join([feature(7, 40)])]
    batch = collate(rows, PAD)
    assert sorted(batch.inputs) == ["input_ids", "position_ids"]
    assert batch.inputs["position_ids"].tolist() == [
        [0, 1, 2, 0, 1, 0, 1],
        [0, 1, 2, 3, 0, 1, 2],
        [0, 1, 2, 3, 4, 5, 6],
    ]
    assert batch.inputs["input_ids"][0].tolist() == [10, 11, 12, 20, 21, PAD, PAD]
    assert (
        batch.target_rows_M.tolist() == batch.labels.flatten().ne(-100).nonzero().flatten().tolist()
    )
    assert (batch.num_targets, batch.size) == (5, 16)


def test_flattened_rows_are_one_without_padding() -> None:
    batch = collate([join([feature(3), feature(2, 20)]), join([feature(4, 30)])], PAD, flatten=True)
    assert batch.inputs["input_ids"].tolist() == [[10, 11, 12, 20, 21, 30, 31, 32, 33]]
    assert batch.inputs["position_ids"].tolist() == [[0, 1, 2, 0, 1, 0, 1, 2, 3]]
    assert batch.labels.shape == (1, 9)
    assert batch.size == 9


def test_rows_without_samples_to_hide_are_not_flattened() -> None:
    batch = collate([feature(3), feature(2)], PAD, flatten=True)
    assert batch.inputs["input_ids"].shape == (2, 3)


@pytest.mark.parametrize("flatten", [False, True])
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2", "gemma2"])
def test_packed_equals_unpacked_in_loss_and_gradients(architecture: str, flatten: bool) -> None:
    random = torch.Generator().manual_seed(0)
    samples = []
    for number, length in enumerate([5, 17, 3, 9, 1, 12]):
        ids = torch.randint(10, VOCABULARY, (length,), generator=random).tolist()
        samples.append(text_row(number, 0, 1, ids, [*ids[1:], IGNORE_INDEX]))
    packed = [join(samples[:3]), join(samples[3:5]), join(samples[5:])]
    answers = []
    for rows in (samples, packed):
        model = causal_model(architecture)
        attach_lm_head(model)
        batch = collate(rows, PAD, flatten=flatten)
        output = model(labels_BT=batch.labels, use_cache=False, **batch.inputs)
        output.loss.backward()
        gradients = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
        answers.append((output.loss_sum, gradients))
    (expected, ours), (seen, theirs) = answers
    assert seen.item() == pytest.approx(expected.item(), rel=1e-6)
    for name, gradient in ours.items():
        assert (theirs[name] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-7, name
