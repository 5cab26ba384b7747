"""A model and an optimizer become a DeepSpeed engine: one path from one CPU to many nodes."""

from __future__ import annotations

import io
import logging
import math
from contextlib import redirect_stdout
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
    with redirect_stdout(io.StringIO()):  # the bf16 optimizer prints how full the memory is
        engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=ds_config)
    engine.checkpoint_engine = SafeCheckpointEngine(engine._config)
    _skip_what_is_not_finite(engine)
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


def _skip_what_is_not_finite(engine: Any) -> None:
    """A gradient whose norm is not finite updates nothing: no weight, no state, no step count.

    DeepSpeed decides so itself at ZeRO 1-3, by the norm that all ranks share, but asks the device
    for it again and again. Here it is read once, and what follows asks the host's copy.
    """
    from deepspeed.runtime import bf16_optimizer, utils

    optimizer, stage = engine.optimizer, engine.zero_optimization_stage()
    if stage == 0:
        engine.clip_fp32_gradients = lambda: _clip_or_drop(engine)
    elif stage == 3:
        norms = optimizer._get_norm_groups
        combined = utils.combine_grad_norm_groups
        optimizer._get_norm_groups = lambda: [_on_the_host(combined(norms()))]
    elif isinstance(optimizer, bf16_optimizer.BF16_Optimizer):  # of stage 1
        norm_of = utils.get_global_norm_of_tensors
        bf16_optimizer.get_global_norm_of_tensors = lambda **given: _on_the_host(norm_of(**given))
    else:
        norm = optimizer.scaled_global_norm
        optimizer.scaled_global_norm = lambda: _on_the_host(norm())
        if not engine.fp16_enabled():
            # In bf16 it would read every gradient once more to say what their norm says.
            optimizer.check_overflow = lambda partition_gradients: None
            optimizer.check_grad_overflow = True


def _clip_or_drop(engine: Any) -> None:
    """Without ZeRO, DeepSpeed clips, but forgets the norm that it clipped by."""
    norm = nn.utils.clip_grad_norm_(engine.module.parameters(), engine.gradient_clipping()).item()
    engine._global_grad_norm = norm
    engine.optimizer.overflow = not math.isfinite(norm)  # counted by DeepSpeed
    if engine.optimizer.overflow:
        engine.zero_grad()  # to None: optimizers pass over parameters without a gradient


def _on_the_host(number: torch.Tensor) -> torch.Tensor:
    """A copy on the CPU. Syncs the host."""
    return torch.tensor(number.item(), dtype=number.dtype)


def _reduce_nothing(engine: Any) -> None:
    """Alone, DeepSpeed's all-reduce would only copy every gradient twice: 40 ms of a step of 450
    for MiniLM on a CPU (docs/lab-log.md)."""

    def buffered_allreduce_fallback(grads: Any = None, elements_per_buffer: int = 0) -> None:
        if engine.zero_optimization_stage() == 0:
            engine._get_gradients_for_reduction()  # gives unused parameters their zeros

    engine.buffered_allreduce_fallback = buffered_allreduce_fallback
