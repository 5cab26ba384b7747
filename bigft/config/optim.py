"""The section optim: the optimizer, its schedule and the loss."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from bigft.config.fields import Fraction, NotNegative, Positive, Section

Optimizer = Literal[
    "adamw_torch",
    "adam",
    "sgd",
    "rmsprop",
    "adamw_8bit",
    "adam_8bit",
    "lion_8bit",
    "sgd_8bit",
    "paged_adamw_8bit",
    "paged_adam_8bit",
    "paged_lion_8bit",
    "cpu_adam",
]
Scheduler = Literal["linear", "cosine", "constant", "polynomial", "exponential"]


def _whole_or_ratio(steps: float) -> float:
    if steps >= 1 and steps != int(steps):
        raise ValueError("a whole number of steps, or a ratio of all steps below 1")
    return steps


class SchedulerKwargs(Section):
    """Details of the schedule, as transformers' lr_scheduler_kwargs."""

    num_cycles: Positive = 0.5
    """Waves of the cosine; half a wave falls from the highest rate to the lowest."""
    power: Positive = 1.0
    """Exponent of the polynomial."""
    min_lr_rate: Annotated[float, Field(gt=0, lt=1)] | None = None
    """The lowest rate, as a share of the highest; null: 0, and 0.01 for exponential."""


class OptimConfig(Section):
    """The optimizer, its schedule and the loss."""

    optim: Optimizer = "adamw_torch"
    """The optimizer."""
    learning_rate: NotNegative = 5e-5
    """The highest learning rate, reached after the warm-up."""
    head_learning_rate: NotNegative | None = None
    """The highest learning rate of the new head; null: learning_rate."""
    layerwise_lr_decay: Annotated[float, Field(gt=0, le=1)] | None = None
    """Factor on the learning rate from each layer to the one below; null: none."""
    weight_decay: NotNegative = 0.0
    """Weight decay, decoupled in AdamW, Lion and bitsandbytes' Adam; biases and norms have none."""
    adam_beta1: Fraction = 0.9
    """Decay of the mean of the gradient."""
    adam_beta2: Fraction = 0.999
    """Decay of the mean of its square."""
    adam_epsilon: Positive = 1e-8
    """Added to Adam's denominator."""
    max_grad_norm: NotNegative = 1.0
    """The gradient's norm is clipped to this; 0: no clipping."""
    lr_scheduler_type: Scheduler = "linear"
    """Course of the learning rate after the warm-up."""
    lr_scheduler_kwargs: SchedulerKwargs = SchedulerKwargs()
    """Details of the schedule."""
    warmup_steps: Annotated[NotNegative, AfterValidator(_whole_or_ratio)] = 0.0
    """Steps of linear warm-up; below 1 a ratio of all steps."""
    label_smoothing_factor: Fraction = 0.0
    """Share of each target that is spread over all classes."""
    class_weights: dict[str, NotNegative] | Literal["balanced"] | None = None
    """Weight of a target by its label; labels that are not named weigh 1. balanced: all labels
    weigh alike in the training data, and a target 1 in the mean."""
    focal_gamma: NotNegative = 0.0
    """Focal loss: a target's loss is multiplied by (1 - its probability) to this power."""
