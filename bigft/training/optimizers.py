"""Optimizers and learning-rate schedules by name, and which parameters decay."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Set
from typing import Any

import torch
from torch import nn

from bigft.config.sections import OptimConfig, SchedulerKwargs

Groups = list[dict[str, Any]]


def _adamw_torch(groups: Groups, optim: OptimConfig) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        groups, betas=(optim.adam_beta1, optim.adam_beta2), eps=optim.adam_epsilon, fused=True
    )


def _sgd(groups: Groups, optim: OptimConfig) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups)


def _adamw_8bit(groups: Groups, optim: OptimConfig) -> torch.optim.Optimizer:
    from bitsandbytes.optim.adamw import AdamW8bit

    return AdamW8bit(groups, betas=(optim.adam_beta1, optim.adam_beta2), eps=optim.adam_epsilon)


OPTIMIZERS: dict[str, Callable[[Groups, OptimConfig], torch.optim.Optimizer]] = {
    "adamw_torch": _adamw_torch,
    "sgd": _sgd,
    "adamw_8bit": _adamw_8bit,
}


def parameter_groups(model: nn.Module, optim: OptimConfig, head_names: Set[str]) -> Groups:
    """Trainable parameters by (head or body, decayed or not); biases and norms never decay.

    Each group holds its own `peak_lr`, which `set_learning_rate` scales by the schedule.
    head_names: the parameters that the task put on top of the pretrained model.
    """
    undecayed = set(_undecayed_names(model))
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            kind = (name in head_names, name not in undecayed)
            groups.setdefault(kind, []).append(parameter)
    head_lr = optim.head_learning_rate
    result = []
    for (is_head, decays), parameters in sorted(groups.items(), key=lambda item: item[0]):
        peak = head_lr if is_head and head_lr is not None else optim.learning_rate
        result.append(
            {
                "params": parameters,
                "lr": peak,
                "peak_lr": peak,
                "weight_decay": optim.weight_decay if decays else 0.0,
            }
        )
    return result


def _undecayed_names(model: nn.Module) -> Iterator[str]:
    for prefix, module in model.named_modules():
        is_norm = "norm" in type(module).__name__.lower()
        for name, _ in module.named_parameters(prefix, recurse=False):
            if is_norm or name.endswith("bias"):
                yield name


def set_learning_rate(optimizer: Any, factor: float) -> float:
    """Sets every group's rate to peak_lr * factor; returns the first group's."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak_lr"] * factor
    return float(optimizer.param_groups[0]["lr"])


# -- schedules: progress in [0, 1] after the warm-up -> share of the way from lowest to peak -----


def _linear(progress: float, options: SchedulerKwargs) -> float:
    return 1.0 - progress


def _cosine(progress: float, options: SchedulerKwargs) -> float:
    return 0.5 * (1.0 + math.cos(math.pi * 2.0 * options.num_cycles * progress))


def _constant(progress: float, options: SchedulerKwargs) -> float:
    return 1.0


def _exponential(progress: float, options: SchedulerKwargs) -> float:
    lowest = options.min_lr_rate or 0.01
    return (lowest**progress - lowest) / (1.0 - lowest)


def _polynomial(progress: float, options: SchedulerKwargs) -> float:
    return (1.0 - progress) ** options.power


SCHEDULES: dict[str, Callable[[float, SchedulerKwargs], float]] = {
    "linear": _linear,
    "cosine": _cosine,
    "constant": _constant,
    "exponential": _exponential,
    "polynomial": _polynomial,
}


def warmup_steps(optim: OptimConfig, total_steps: int) -> int:
    """Steps of the warm-up: a value below 1 is a share of all steps."""
    asked = optim.warmup_steps
    return math.ceil(asked * total_steps) if asked < 1 else int(asked)


def learning_rate_factor(optim: OptimConfig, step: int, total_steps: int) -> float:
    """What the peak rate is multiplied with in step `step` (0-based): a pure function.

    Rises linearly over the warm-up from 0, then follows the schedule over the steps left, as
    transformers' schedules do.
    """
    warmup = warmup_steps(optim, total_steps)
    if step < warmup:
        return step / max(1, warmup)
    progress = min(1.0, (step - warmup) / max(1, total_steps - warmup))
    options = optim.lr_scheduler_kwargs
    lowest = options.min_lr_rate or (0.01 if optim.lr_scheduler_type == "exponential" else 0.0)
    share = SCHEDULES[optim.lr_scheduler_type](progress, options)
    return lowest + (1.0 - lowest) * share
