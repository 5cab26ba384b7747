"""A model and an optimizer become a DeepSpeed engine: one path from one CPU to many nodes."""

from __future__ import annotations

import logging
from typing import Any

import torch
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
    return engine


def _keep_gradient_norm(engine: Any) -> None:
    """Without ZeRO, DeepSpeed clips but forgets the norm that it clipped by."""

    def clip_fp32_gradients() -> None:
        engine._global_grad_norm = nn.utils.clip_grad_norm_(
            engine.module.parameters(), engine.gradient_clipping()
        )

    engine.clip_fp32_gradients = clip_fp32_gradients
