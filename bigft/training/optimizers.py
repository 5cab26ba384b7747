"""Optimizers and learning-rate schedules by name, and which parameters decay."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Set
from typing import Any

import torch
from torch import nn

from bigft.config.optim import OptimConfig, SchedulerKwargs
from bigft.models.layers import layer_numbers
from bigft.training.compiled import compiling

Groups = list[dict[str, Any]]


Factory = Callable[[Groups, OptimConfig], torch.optim.Optimizer]


def _betas(optim: OptimConfig) -> tuple[float, float]:
    return optim.adam_beta1, optim.adam_beta2


def _adamw_torch(groups: Groups, optim: OptimConfig) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, betas=_betas(optim), eps=optim.adam_epsilon, fused=True)


def _adam(groups: Groups, optim: OptimConfig) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, betas=_betas(optim), eps=optim.adam_epsilon, fused=True)


def _sgd(groups: Groups, optim: OptimConfig) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups)


def _rmsprop(groups: Groups, optim: OptimConfig) -> torch.optim.Optimizer:
    return torch.optim.RMSprop(groups, alpha=optim.adam_beta2, eps=optim.adam_epsilon)


def _cpu_adam(groups: Groups, optim: OptimConfig) -> torch.optim.Optimizer:
    """AdamW on the host's cores; DeepSpeed compiles it at its first use, which takes a minute."""
    from deepspeed.ops.adam import DeepSpeedCPUAdam

    with compiling("cpu_adam", "optim.optim"):
        made: torch.optim.Optimizer = DeepSpeedCPUAdam(
            groups, betas=_betas(optim), eps=optim.adam_epsilon, adamw_mode=True
        )
    return made


def _adam_8bit(name: str) -> Factory:
    """Of bitsandbytes; decays apart from the gradient in Adam too. Paged states are on GPUs only:
    on a CPU they are plain ones."""

    def make(groups: Groups, optim: OptimConfig) -> torch.optim.Optimizer:
        kind = getattr(_bitsandbytes(), name)
        made: torch.optim.Optimizer = kind(groups, betas=_betas(optim), eps=optim.adam_epsilon)
        return made

    return make


def _lion_8bit(name: str) -> Factory:
    def make(groups: Groups, optim: OptimConfig) -> torch.optim.Optimizer:
        made: torch.optim.Optimizer = getattr(_bitsandbytes(), name)(groups, betas=_betas(optim))
        return made

    return make


def _sgd_8bit(groups: Groups, optim: OptimConfig) -> torch.optim.Optimizer:
    """With momentum adam_beta1: without it there is no state to keep in 8 bits."""
    made: torch.optim.Optimizer = _bitsandbytes().SGD8bit(
        groups, lr=optim.learning_rate, momentum=optim.adam_beta1
    )
    return made


def _bitsandbytes() -> Any:
    import bitsandbytes.optim

    return bitsandbytes.optim


OPTIMIZERS: dict[str, Factory] = {
    "adamw_torch": _adamw_torch,
    "adam": _adam,
    "sgd": _sgd,
    "rmsprop": _rmsprop,
    "adamw_8bit": _adam_8bit("AdamW8bit"),
    "adam_8bit": _adam_8bit("Adam8bit"),
    "lion_8bit": _lion_8bit("Lion8bit"),
    "sgd_8bit": _sgd_8bit,
    "paged_adamw_8bit": _adam_8bit("PagedAdamW8bit"),
    "paged_adam_8bit": _adam_8bit("PagedAdam8bit"),
    "paged_lion_8bit": _lion_8bit("PagedLion8bit"),
    "cpu_adam": _cpu_adam,
}


# What an optimizer keeps of each parameter, in bytes; one that is not here counts as nothing.
STATE_BYTES = {"adamw_torch": 8, "adam": 8, "cpu_adam": 8, "rmsprop": 4}
STATE_BYTES |= {"adamw_8bit": 2, "adam_8bit": 2, "paged_adamw_8bit": 2, "paged_adam_8bit": 2}
STATE_BYTES |= {"lion_8bit": 1, "paged_lion_8bit": 1, "sgd_8bit": 1}


def checkpoint_bytes(optim: OptimConfig, trainable: int) -> int:
    """What a checkpoint of so many trained parameters takes on disk; a lower bound."""
    return trainable * (4 + STATE_BYTES.get(optim.optim, 0))


def parameter_groups(model: nn.Module, optim: OptimConfig, head_names: Set[str]) -> Groups:
    """Trainable parameters by (head or body, layer, decayed or not); biases and norms never decay.

    Each group holds its own `peak_lr`, which `set_learning_rate` scales by the schedule. With
    layerwise_lr_decay d, what is n layers below the top has the rate learning_rate * d ** n
    (`layer_numbers`); a head_learning_rate is as it is.
    head_names: the parameters that the task put on top of the pretrained model.
    """
    undecayed = set(_undecayed_names(model))
    decay = optim.layerwise_lr_decay
    numbers = {} if decay is None else layer_numbers(model)
    top = max(numbers.values(), default=0)
    groups: dict[tuple[bool, int, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_head = name in head_names
            number = top if is_head else numbers.get(name, 0)
            groups.setdefault((is_head, top - number, name not in undecayed), []).append(parameter)
    head_lr = optim.head_learning_rate
    result = []
    for (is_head, below_top, decays), parameters in sorted(
        groups.items(), key=lambda item: item[0]
    ):
        peak = optim.learning_rate * (decay or 1.0) ** below_top
        if is_head and head_lr is not None:
            peak = head_lr
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
    """Sets every group's rate to peak_lr * factor; returns the first group's: of the highest layer
    of the body that is trained."""
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
