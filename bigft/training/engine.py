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
    _cast_what_is_not_sharded(model)
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=ds_config)
    engine.checkpoint_engine = SafeCheckpointEngine(engine._config)
    if engine.zero_optimization_stage() == 0:
        _keep_gradient_norm(engine)
    if dist.get_world_size() == 1:
        _reduce_nothing(engine)
    return engine


def _cast_what_is_not_sharded(model: nn.Module) -> None:
    """Adapters on a model that was born sharded get its dtype; DeepSpeed casts all other models,
    but takes this one as it is, and cannot shard two dtypes."""
    parameters = list(model.parameters())
    sharded = next((each for each in parameters if hasattr(each, "ds_id")), None)
    if sharded is not None:
        for parameter in parameters:
            if not hasattr(parameter, "ds_id"):
                parameter.data = parameter.data.to(sharded.dtype)


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
