"""A model and an optimizer become a DeepSpeed engine: one path from one CPU to many nodes."""

from __future__ import annotations

import logging
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from bigft.training.checkpoint.shards import SafeCheckpointEngine


def build_engine(
    model: nn.Module, optimizer: torch.optim.Optimizer, ds_config: dict[str, Any]
) -> Any:
    """The DeepSpeedEngine. Collective: every rank calls it with the same arguments.

    Its checkpoint files are loaded without unpickling anything but tensors and a few of
    DeepSpeed's own classes.
    """
    import deepspeed

    logging.getLogger("DeepSpeed").setLevel(logging.ERROR)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=ds_config)
    engine.checkpoint_engine = SafeCheckpointEngine(engine._config)
    if engine.zero_optimization_stage() == 0:
        _keep_gradient_norm(engine)
    if dist.get_world_size() == 1:
        _reduce_nothing(engine)
    return engine


def _keep_gradient_norm(engine: Any) -> None:
    """Without ZeRO, DeepSpeed clips but forgets the norm that it clipped by."""

    def clip_fp32_gradients() -> None:
        engine._global_grad_norm = nn.utils.clip_grad_norm_(
            engine.module.parameters(), engine.gradient_clipping()
        )

    engine.clip_fp32_gradients = clip_fp32_gradients


def _reduce_nothing(engine: Any) -> None:
    """Alone, DeepSpeed's all-reduce would only copy every gradient twice: 40 ms of a step of 450
    for MiniLM on a CPU (docs/lab-log.md)."""

    def buffered_allreduce_fallback(grads: Any = None, elements_per_buffer: int = 0) -> None:
        if engine.zero_optimization_stage() == 0:
            engine._get_gradients_for_reduction()  # gives unused parameters their zeros

    engine.buffered_allreduce_fallback = buffered_allreduce_fallback
