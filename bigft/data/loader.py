"""Collated batches of one rank, read ahead of the step that uses them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch

from bigft.data.cut import cut, shard_for_evaluation
from bigft.data.order import Order
from bigft.data.packing import Ids, join
from bigft.data.records import Batch, Row
from bigft.data.split import PreparedSplit
from bigft.runtime.seeding import address

Collate = Callable[[Sequence[Row]], Batch]
Item = TypeVar("Item")

READ_AHEAD = 2


class StepLoader:
    """This rank's micro-batches of any global step; close it, or use it in a `with`.

    Every rank gets the same number of micro-batches. Where it has no rows for one, it gets the
    shortest sample of the global batch at weight zero (num_targets 0). Packed rows are collated as
    one row with `parts` each.

    max_samples, max_tokens: bounds on a micro-batch's rows, and on rows x longest row.
    last_step: the last step (from 0) that will be asked for; nothing beyond it is read ahead.
    pin_memory: page-locked tensors, for copies to a CUDA device that overlap with compute.
    """

    def __init__(
        self,
        split: PreparedSplit,
        order: Order,
        collate: Collate,
        rank: int,
        world_size: int,
        max_samples: int | None,
        max_tokens: int | None,
        last_step: int,
        pin_memory: bool = False,
    ) -> None:
        def read(epoch: int, samples: Ids, occurrences: Ids) -> Row:
            rows = [
                replace(
                    split.row(sample), draw=address(order.seed, "row", epoch, sample, occurrence)
                )
                for sample, occurrence in zip(samples.tolist(), occurrences.tolist(), strict=True)
            ]
            return rows[0] if order.row_capacity is None else join(rows)

        def load(step: int) -> list[Batch]:
            epoch, _ = order.position(step)
            rows, ids = order.rows(step), order.global_batch(step)
            occurrences = order.occurrences(step)
            micro_batches = cut(
                np.arange(len(rows)),
                np.array([order.lengths[row].sum() for row in rows]),
                world_size,
                max_samples=max_samples,
                max_tokens=max_tokens,
            )[rank]
            filler = ids[[order.lengths[ids].argmin()]]
            return [
                _load(
                    [read(epoch, rows[row], occurrences[row]) for row in part],
                    lambda: read(epoch, filler, np.zeros_like(filler)),
                    collate,
                    pin_memory,
                )
                for part in micro_batches
            ]

        self._ahead = _ReadAhead(load, last_step)

    def batches(self, step: int) -> list[Batch]:
        """The micro-batches of the step, on the CPU. Any step may be asked for at any time.

        Raises what reading or collating raised, at the step that it belongs to.
        """
        return self._ahead.get(step)

    def close(self) -> None:
        self._ahead.close()

    def __enter__(self) -> StepLoader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


class EvalBatch(NamedTuple):
    """is_filler: run the batch for the other ranks' sake, and use none of its predictions."""

    batch: Batch
    is_filler: bool


class EvalLoader:
    """This rank's share of a split for evaluation: len() and iteration, as often as wanted.

    Every rank gets the same number of batches; the windows of a record follow each other in order.
    """

    def __init__(
        self,
        split: PreparedSplit,
        collate: Collate,
        rank: int,
        world_size: int,
        max_samples: int,
        pin_memory: bool = False,
    ) -> None:
        self._split = split
        self._collate = collate
        self._pin_memory = pin_memory
        shards = shard_for_evaluation(split.record_of_row, split.lengths, world_size, max_samples)
        self._rows_of = shards[rank]

    def __len__(self) -> int:
        return len(self._rows_of)

    def __iter__(self) -> Iterator[EvalBatch]:
        shortest = int(self._split.lengths.argmin())

        def read(index: int) -> Row:
            draw = address("evaluation", self._split.name, index)  # of every run and evaluation
            return replace(self._split.row(index), draw=draw)

        def load(index: int) -> EvalBatch:
            rows = [read(int(row)) for row in self._rows_of[index]]
            batch = _load(rows, lambda: read(shortest), self._collate, self._pin_memory)
            return EvalBatch(batch, is_filler=not rows)

        ahead = _ReadAhead(load, len(self) - 1)
        try:
            for index in range(len(self)):
                yield ahead.get(index)
        finally:
            ahead.close()


def _load(rows: list[Row], filler: Callable[[], Row], collate: Collate, pin_memory: bool) -> Batch:
    batch = collate(rows) if rows else collate([filler()]).without_targets()
    if not pin_memory:
        return batch
    inputs: dict[str, torch.Tensor] = {
        name: value.pin_memory() for name, value in batch.inputs.items()
    }
    return replace(batch, inputs=inputs, labels=batch.labels.pin_memory())


class _ReadAhead(Generic[Item]):
    """load(index) with the next READ_AHEAD indices loaded meanwhile, on one thread, in order."""

    def __init__(self, load: Callable[[int], Item], last: int) -> None:
        self._load = load
        self._last = last
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="bigft-loader")
        self._loading: dict[int, Future[Item]] = {}

    def get(self, index: int) -> Item:
        wanted = [index, *range(index + 1, min(index + READ_AHEAD, self._last) + 1)]
        for other in [key for key in self._loading if key not in wanted]:
            self._loading.pop(other).cancel()
        for key in wanted:
            if key not in self._loading:
                self._loading[key] = self._pool.submit(self._load, key)
        return self._loading.pop(index).result()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)
