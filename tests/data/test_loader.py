"""Loaders give each rank its batches, as many as every other rank, and read ahead of the step."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from prepared import prepare_split
from waiting import PATIENCE

from bigft.data.cut import cut
from bigft.data.loader import READ_AHEAD, EvalLoader, StepLoader
from bigft.data.order import Order
from bigft.data.records import IGNORE_INDEX, Batch, Record, Row
from bigft.data.split import PreparedSplit
from bigft.tasks.text_rows import text_row

LAST_STEP = 9
A_WHILE = 0.2  # in which nothing more may happen


def encode(record: Record) -> list[Row]:
    """Every fifth record has two windows."""
    num_windows = 1 + (record.index % 5 == 0)
    ids = [record.index] * (record.index % 9 + 1)
    return [text_row(record.index, w, num_windows, ids, ids) for w in range(num_windows)]


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> PreparedSplit:
    directory = tmp_path_factory.mktemp("prepared")
    prepare_split(directory, "train", (Record(i, {}, "f", i) for i in range(43)), encode)
    return PreparedSplit(directory, "train")


def collate(features: Sequence[Row]) -> Batch:
    longest = max(feature.length for feature in features)
    labels_BT = torch.full((len(features), longest), IGNORE_INDEX)
    for row, feature in enumerate(features):
        labels_BT[row, : feature.length] = torch.tensor(feature.columns["labels"])
    targets = torch.nonzero(labels_BT.flatten() != IGNORE_INDEX).flatten()
    num_tokens = sum(feature.length for feature in features)
    inputs = {"input_ids": labels_BT.clamp(min=0)}
    return Batch(inputs, labels_BT, targets, len(targets), num_tokens, list(features))


def rows(batches: Sequence[Batch]) -> Counter[tuple[int, int]]:
    """The samples of all rows that count."""
    return Counter(
        (sample.record, sample.window)
        for batch in batches
        if batch.num_targets
        for feature in batch.rows
        for sample in feature.samples
    )


StepLoaders = Callable[..., StepLoader]


@pytest.fixture
def loader(split: PreparedSplit) -> Iterator[StepLoaders]:
    made: list[StepLoader] = []

    def make(
        collate: Callable[[Sequence[Row]], Batch] = collate,
        rank: int = 0,
        world_size: int = 1,
        size: int = 8,
        max_samples: int | None = 2,
        row_capacity: int | None = None,
    ) -> StepLoader:
        order = Order(split.lengths, 0, global_batch_size=size, row_capacity=row_capacity)
        made.append(
            StepLoader(split, order, collate, rank, world_size, max_samples, None, LAST_STEP)
        )
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.mark.parametrize("world_size", [1, 3, 5])
def test_the_ranks_of_a_step_hold_its_global_batch_in_as_many_micro_batches(
    split: PreparedSplit, loader: StepLoaders, world_size: int
) -> None:
    order = Order(split.lengths, 0, global_batch_size=8)
    ranks = [loader(rank=rank, world_size=world_size) for rank in range(world_size)]
    for step in (0, 1, 7):
        batches = [one.batches(step) for one in ranks]
        assert len({len(own) for own in batches}) == 1
        features = [split.row(int(i)) for i in order.global_batch(step)]
        wanted = Counter((f.record, f.window) for f in features)
        assert rows([batch for own in batches for batch in own]) == wanted


def test_a_rank_without_samples_runs_the_shortest_one_at_weight_zero(
    split: PreparedSplit, loader: StepLoaders
) -> None:
    batch = loader(rank=2, world_size=3, size=2, max_samples=1).batches(0)[0]
    ids = Order(split.lengths, 0, global_batch_size=2).global_batch(0)
    assert len(cut(ids, split.lengths, 3, max_samples=1)[2][0]) == 0
    assert [f.length for f in batch.rows] == [split.lengths[ids].min()]
    assert (batch.num_targets, batch.size) == (0, 0)
    assert (batch.labels == IGNORE_INDEX).all()


@pytest.mark.parametrize("world_size", [1, 3, 5])
def test_packed_rows_hold_the_samples_of_the_step_whatever_the_world(
    split: PreparedSplit, loader: StepLoaders, world_size: int
) -> None:
    order = Order(split.lengths, 0, global_batch_size=8, row_capacity=12)
    ranks = [
        loader(rank=rank, world_size=world_size, row_capacity=12) for rank in range(world_size)
    ]
    for step in (0, 1, 7):
        batches = [one.batches(step) for one in ranks]
        assert len({len(own) for own in batches}) == 1
        seen = [batch for own in batches for batch in own]
        features = [split.row(int(i)) for i in order.global_batch(step)]
        assert rows(seen) == Counter((f.record, f.window) for f in features)
        joined = [
            tuple(replace(part, draw=0) for part in f.parts)
            for batch in seen
            if batch.num_targets
            for f in batch.rows
        ]
        wanted = [tuple(split.row(int(i)) for i in row) for row in order.rows(step)]
        assert sorted(joined, key=str) == sorted(wanted, key=str)
        assert all(len(batch.rows) <= 2 for batch in seen)


def test_a_rank_without_rows_runs_one_that_is_collated_like_the_others(
    split: PreparedSplit, loader: StepLoaders
) -> None:
    last = loader(rank=4, world_size=5, row_capacity=64).batches(0)
    assert [batch.num_targets for batch in last] == [0]
    ids = Order(split.lengths, 0, global_batch_size=8).global_batch(0)
    (row,) = last[0].rows
    (sample,) = row.parts
    assert sample.length == split.lengths[ids].min()


def test_any_step_may_be_asked_for_at_any_time(loader: StepLoaders) -> None:
    one = loader()
    walked = [rows(one.batches(step)) for step in range(LAST_STEP + 1)]
    for step in (4, 4, 5, 0, 9, 8):
        assert rows(one.batches(step)) == walked[step]


def test_the_next_steps_are_read_meanwhile_but_no_more_and_none_beyond_the_last(
    loader: StepLoaders,
) -> None:
    collated: list[int] = []
    done = threading.Condition()

    def watched(features: Sequence[Row]) -> Batch:
        with done:
            collated.append(threading.get_ident())
            done.notify_all()
        return collate(features)

    one = loader(collate=watched, max_samples=None)  # one micro-batch a step
    one.batches(0)
    with done:
        assert done.wait_for(lambda: len(collated) == 1 + READ_AHEAD, timeout=PATIENCE)
        assert not done.wait_for(lambda: len(collated) > 1 + READ_AHEAD, timeout=A_WHILE)
    assert threading.get_ident() not in collated
    one.batches(LAST_STEP)
    one.close()
    assert len(collated) == 2 + READ_AHEAD


def test_an_error_in_reading_ahead_is_raised_at_the_step_it_belongs_to(
    split: PreparedSplit, loader: StepLoaders
) -> None:
    order = Order(split.lengths, 0, global_batch_size=8)
    bad = split.row(int(order.global_batch(2)[0]))

    def faulty(features: Sequence[Row]) -> Batch:
        if any(replace(row, draw=0) == bad for row in features):
            raise RuntimeError("cannot collate")
        return collate(features)

    one = loader(collate=faulty)
    one.batches(0)
    one.batches(1)
    with pytest.raises(RuntimeError, match="cannot collate"):
        one.batches(2)
    one.batches(3)


def test_closing_ends_the_thread(loader: StepLoaders) -> None:
    before = threading.active_count()
    with loader() as one:
        one.batches(0)
        assert threading.active_count() == before + 1
    assert threading.active_count() == before


@pytest.mark.parametrize("world_size", [1, 3, 11])
def test_evaluation_sees_every_row_once_and_fillers_are_flagged(
    split: PreparedSplit, world_size: int
) -> None:
    loaders = [EvalLoader(split, collate, rank, world_size, 4) for rank in range(world_size)]
    ranks = [list(one) for one in loaders]
    assert len({len(items) for items in ranks} | {len(one) for one in loaders}) == 1
    seen = [item.batch for items in ranks for item in items if not item.is_filler]
    assert rows(seen) == Counter((f.record, f.window) for f in map(split.row, range(len(split))))
    for item in (item for items in ranks for item in items):
        assert item.is_filler == (item.batch.num_targets == 0)
    for items in ranks:
        own = [f for item in items if not item.is_filler for f in item.batch.rows]
        for first, second in pairwise(own):
            if first.window < first.num_windows - 1:
                assert (second.record, second.window) == (first.record, first.window + 1)


def test_evaluation_has_fillers_where_a_rank_has_fewer_rows(tmp_path: Path) -> None:
    prepare_split(tmp_path, "test", [Record(3, {}, "f", 1), Record(1, {}, "f", 2)], encode)
    split = PreparedSplit(tmp_path, "test")
    last = list(EvalLoader(split, collate, 2, 3, 4))
    assert [item.is_filler for item in last] == [True]
    assert [f.record for f in last[0].batch.rows] == [1]


def test_an_evaluation_may_be_repeated_and_abandoned(split: PreparedSplit) -> None:
    loader = EvalLoader(split, collate, 0, 1, 4)
    before = threading.active_count()
    for _ in loader:
        break
    assert threading.active_count() == before
    assert rows([i.batch for i in loader]) == rows([i.batch for i in loader])


@pytest.mark.gpu
def test_pinned_batches_are_page_locked(split: PreparedSplit) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    for item in EvalLoader(split, collate, 0, 1, 4, pin_memory=True):
        assert item.batch.labels.is_pinned()
        assert item.batch.inputs["input_ids"].is_pinned()


def draws(split: PreparedSplit, world_size: int, step: int, **options: Any) -> dict[int, int]:
    """The draw of every sample of a step, by record and window, whichever rank runs it."""
    order = Order(split.lengths, 7, global_batch_size=8, **options)
    found: list[tuple[tuple[int, int], int]] = []
    for rank in range(world_size):
        with StepLoader(split, order, collate, rank, world_size, 3, None, LAST_STEP) as one:
            found += [
                ((sample.record, sample.window), sample.draw)
                for batch in one.batches(step)
                if batch.num_targets
                for row in batch.rows
                for sample in row.samples
            ]
    assert len(dict(found)) == len(found)
    return dict(found)


def test_what_is_drawn_for_a_sample_is_the_same_in_every_layout(split: PreparedSplit) -> None:
    alone = draws(split, 1, 5)
    assert draws(split, 3, 5) == draws(split, 5, 5) == draws(split, 2, 5, row_capacity=64) == alone
    assert len({*alone.values()}) == len(alone)


def test_each_epoch_draws_anew(split: PreparedSplit) -> None:
    order = Order(split.lengths, 7, global_batch_size=8)
    epoch = [draws(split, 1, step) for step in range(order.steps_in_epoch(0))]
    again = [draws(split, 1, step + len(epoch)) for step in range(len(epoch))]
    first = {draw for step in epoch for draw in step.values()}
    second = {draw for step in again for draw in step.values()}
    assert len(first) == len(second) == len(split)
    assert not first & second


def test_a_sample_that_comes_often_in_an_epoch_is_drawn_for_each_time(split: PreparedSplit) -> None:
    """A source of four rows gives half of an epoch."""
    source = np.minimum(np.arange(len(split)) // 4, 1)
    options: dict[str, Any] = {"source_of_sample": source, "shares": (0.5, 0.5)}
    order = Order(split.lengths, 7, global_batch_size=8, **options)
    seen: list[int] = []
    with StepLoader(split, order, collate, 0, 1, None, None, LAST_STEP) as one:
        for step in range(order.steps_in_epoch(0)):
            seen += [row.draw for batch in one.batches(step) for row in batch.rows]
    assert len({*seen}) == len(seen) == len(split)


def test_an_evaluation_draws_the_same_every_time_on_any_number_of_ranks(
    split: PreparedSplit,
) -> None:
    def drawn(world_size: int) -> dict[tuple[int, int], int]:
        return {
            (row.record, row.window): row.draw
            for rank in range(world_size)
            for item in EvalLoader(split, collate, rank, world_size, 4)
            if not item.is_filler
            for row in item.batch.rows
        }

    assert drawn(1) == drawn(3) == drawn(1)
    assert len({*drawn(1).values()}) == len(split)


def test_a_batch_of_real_numbers_at_weight_zero_has_no_target() -> None:
    labels_B = torch.tensor([0.5, -100.0])
    batch = Batch({}, labels_B, torch.tensor([0, 1]), 2, 2, []).without_targets()
    assert batch.labels.isnan().all()
    assert (batch.num_targets, batch.size, len(batch.target_rows_M)) == (0, 0, 0)
