"""One training step: every target of the world weighs the same. Derivation: docs/numerics.md."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch

from bigft.data.records import Batch
from bigft.runtime.failpoints import failpoint
from bigft.runtime.process_group import World
from bigft.runtime.seeding import seed_dropout
from bigft.tasks.protocol import Task


class StepCounts(NamedTuple):
    """Sums over ranks and micro-batches: targets, real tokens, ranks that were asked to stop."""

    targets: float
    tokens: int
    stop_requests: int


class StepDone(NamedTuple):
    """What a step came to.

    loss_sum: this rank's, fp64, on the device; not finite only where `nonfinite` says so, or fp16.
    grad_norm: of the world's gradient before clipping; inf where it was not finite.
    nonfinite: "" where the weights were updated; else what forbade it, the same on every rank:
        nothing was changed then, neither weights nor the optimizer's state.
    suspects: this rank's micro-steps that may be the cause; none where `nonfinite` is "".
    """

    loss_sum: torch.Tensor
    grad_norm: float
    nonfinite: Literal["", "loss", "gradient"] = ""
    suspects: tuple[int, ...] = ()


def count(world: World, batches: Sequence[Batch], stop: bool) -> StepCounts:
    """What the world agrees on before any forward: one all-reduce on the hosts' group."""
    targets, tokens, stops = world.sum(
        [
            sum(batch.num_targets for batch in batches),
            sum(batch.size for batch in batches),
            int(stop),
        ]
    )
    return StepCounts(targets, int(tokens), int(stops))


def train_step(
    engine: Any,
    task: Task,
    batches: Sequence[Batch],
    targets: float,
    world: World,
    seed: int,
    step: int,
    tick: Callable[[str], None] = lambda where: None,
) -> StepDone:
    """One optimizer step over this rank's micro-batches; one host read: of the gradient's norm.

    batches: as many on every rank, or ZeRO-3 hangs; a rank without a sample runs one at weight
    zero.  targets: of all ranks, > 0.  tick: told where this rank is, as it gets on, in
    words, counted from 1.

    A loss or gradient that is not finite on any rank: every rank skips the update (`build_engine`).
    With fp16 that is a part of loss scaling, and not told as `nonfinite`.
    """
    engine.train()
    losses = []
    # DeepSpeed averages gradients over ranks: world.size undoes that, targets is the mean.
    scale = world.size / targets
    for micro_step, batch in enumerate(batches):
        tick(f"step {step + 1}, micro-step {micro_step + 1}")
        failpoint("step.forward")
        seed_dropout(seed, step, micro_step, world.rank)
        loss = task.loss(engine, batch.to(world.device), scale)
        # A loss can be NaN and its gradient not. Times 1, or times NaN: then the gradient is NaN,
        # and the norm that all ranks share tells all of them, without a message of its own.
        engine.backward(loss.scaled * (1.0 + 0.0 * loss.loss_sum), scale_wrt_gas=False)
        losses.append(loss.loss_sum)
    tick(f"step {step + 1}, update")
    engine.step()
    loss_sum = torch.stack(losses).double().sum()
    grad_norm = float(engine.get_global_grad_norm())
    if math.isfinite(grad_norm) or engine.fp16_enabled():
        return StepDone(loss_sum, grad_norm)
    bad = [number for number, loss in enumerate(losses) if not loss.isfinite()]
    if world.any(bool(bad)):
        return StepDone(loss_sum, grad_norm, "loss", tuple(bad))
    return StepDone(loss_sum, grad_norm, "gradient", tuple(range(len(losses))))
