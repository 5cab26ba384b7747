"""One training step: every target of the world weighs the same. Derivation: docs/numerics.md."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from bigft.data.records import Batch
from bigft.runtime.process_group import World
from bigft.runtime.seeding import seed_dropout
from bigft.tasks.protocol import Task


class StepCounts(NamedTuple):
    """Sums over ranks and micro-batches: targets, real tokens, ranks that were asked to stop."""

    targets: int
    tokens: int
    stop_requests: int


def count(world: World, batches: Sequence[Batch], stop: bool) -> StepCounts:
    """What the world agrees on before any forward: one all-reduce on the hosts' group."""
    sums = world.sum(
        [
            sum(batch.num_targets for batch in batches),
            sum(batch.num_tokens for batch in batches),
            int(stop),
        ]
    )
    return StepCounts(*(int(number) for number in sums))


def train_step(
    engine: Any,
    task: Task,
    batches: Sequence[Batch],
    targets: int,
    world: World,
    seed: int,
    step: int,
) -> torch.Tensor:
    """One optimizer step over this rank's micro-batches; returns this rank's loss sum (fp64).

    batches: as many on every rank, or ZeRO-3 hangs; a rank without a sample runs one at weight
    zero.  targets: of all ranks, > 0.  The result stays on the device: no host read.
    """
    engine.train()
    total = torch.zeros((), dtype=torch.float64, device=world.device)
    # DeepSpeed averages gradients over ranks: world.size undoes that, targets is the mean.
    scale = world.size / targets
    for micro_step, batch in enumerate(batches):
        seed_dropout(seed, step, micro_step, world.rank)
        loss = task.loss(engine, batch.to(world.device), scale)
        engine.backward(loss.scaled, scale_wrt_gas=False)
        total += loss.loss_sum
    engine.step()
    return total
