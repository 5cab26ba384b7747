"""What is summed up between two log lines, over stops and resumes too."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import Any

import torch

from bigft.runtime.proc import CpuTime
from bigft.runtime.process_group import World
from bigft.training.checkpoint.state import TrainerState


@dataclass(slots=True)
class LogInterval:
    """loss_sum: fp64, of this rank; it stays on the device until the log line.
    targets, tokens: of all ranks.  started: time.monotonic().
    paused: seconds of evaluations and saves, which are no training.
    cpu: of this rank's threads when the interval began."""

    loss_sum: torch.Tensor
    targets: float = 0.0
    tokens: int = 0
    started: float = field(default_factory=time.monotonic)
    paused: float = 0.0
    cpu: CpuTime = field(default_factory=CpuTime.now)

    @classmethod
    def begun(cls, state: TrainerState, world: World) -> LogInterval:
        """The interval that was open when `state` was saved, or an empty one."""
        loss = state.loss_sums[world.rank] if state.loss_sums else 0.0
        return cls(
            torch.tensor(loss, dtype=torch.float64, device=world.device),
            state.window_targets,
            state.window_tokens,
            started=time.monotonic() - state.window_seconds,
        )

    def keep(self, state: TrainerState, world: World, now: float) -> None:
        """Puts what is open into a state that is to be saved. Collective."""
        state.loss_sums = world.gather(self.loss_sum.item())
        state.window_targets, state.window_tokens = self.targets, self.tokens
        state.window_seconds = self._seconds(now)

    def close(self, state: TrainerState, world: World) -> dict[str, Any]:
        """Adds the sums to those of the run in `state`; the log line's means over all ranks.
        Collective.

        The loss of an interval in which nothing was learnt, all its steps being skipped, is NaN.
        cpu_wait: the share of their time that threads which could run waited for a core.
        """
        cpu = CpuTime.now() - self.cpu
        loss_sum, ran, waited = world.sum([self.loss_sum.item(), cpu.ran, cpu.waited])
        seconds = self._seconds(time.monotonic())
        state.total_loss += loss_sum
        state.total_targets += self.targets
        state.total_tokens += self.tokens
        state.training_seconds += seconds
        return {
            "loss": loss_sum / self.targets if self.targets else math.nan,
            "num_targets": int(self.targets) if self.targets == int(self.targets) else self.targets,
            "num_tokens": self.tokens,
            "tokens_per_second": self.tokens / seconds,
            "cpu_wait": waited / max(ran + waited, 1e-9),
        }

    def _seconds(self, now: float) -> float:
        return now - self.started - self.paused
