"""What is odd about a run's learning rate and length, before its first step."""

from __future__ import annotations

from collections.abc import Iterator

from bigft.config.sections import RunConfig
from bigft.data.order import Order
from bigft.training.optimizers import learning_rate_factor, warmup_steps

# Twice the highest rate, or more, that papers and recipes give for Adam and what is trained: full
# fine-tunes take 1e-5 to 1e-3 (T5), small models from random weights up to 1e-2, LoRA up to 3e-3,
# IA3 1e-2, p- and prefix tuning 5e-2, prompt tuning 0.3 (Lester et al. 2021), a head alone 0.1.
HIGHEST_LEARNING_RATE = {
    "full": 2e-3,
    "freeze": 2e-3,
    "from scratch": 2e-2,
    "lora": 1e-2,
    "dora": 1e-2,
    "qlora": 1e-2,
    "ia3": 5e-2,
    "p-tuning": 0.1,
    "prefix": 0.1,
    "prompt": 1.0,
    "head": 0.5,
}
# The same rates for other optimizers, as a factor: Lion takes a third of Adam's or less (Chen et
# al. 2023); plain gradients are not divided by their size.
FACTOR = {"lion_8bit": 1 / 3, "paged_lion_8bit": 1 / 3, "sgd": 100.0, "sgd_8bit": 100.0}


def schedule_notes(config: RunConfig, order: Order) -> Iterator[str]:
    """One sentence, with the numbers, for each of: a learning rate far too high, a warm-up that
    does not end within the run, max_steps beside num_train_epochs."""
    yield from _high_rates(config)
    optim, train = config.optim, config.train
    total = order.total_steps(train.num_train_epochs, train.max_steps)
    warmup = warmup_steps(optim, total)
    if warmup >= total:
        highest = optim.learning_rate * learning_rate_factor(optim, total - 1, total)
        yield (
            f"the warm-up of {warmup:,} steps (optim.warmup_steps {optim.warmup_steps:g}) does not "
            f"end within the run's {total:,}: the learning rate reaches {highest:.2g}, not "
            f"optim.learning_rate {optim.learning_rate:g}"
        )
    if train.max_steps > 0 and "num_train_epochs" in train.model_fields_set:
        epochs = total / order.steps_in_epoch(0)
        yield (
            f"train.max_steps {train.max_steps:,} wins over train.num_train_epochs "
            f"{train.num_train_epochs:g}: the run is {epochs:.3g} epochs long"
        )


def _high_rates(config: RunConfig) -> Iterator[str]:
    optim, method = config.optim, config.adapt.method
    is_new = config.model.from_scratch and method in ("full", "freeze")
    for key, rate, trained in (
        ("learning_rate", optim.learning_rate, "from scratch" if is_new else method),
        ("head_learning_rate", optim.head_learning_rate, "head"),
    ):
        highest = HIGHEST_LEARNING_RATE[trained] * FACTOR.get(optim.optim, 1.0)
        if rate is not None and rate > highest:
            yield (
                f"optim.{key} {rate:g} is far too high: {optim.optim} on what is trained here "
                f"({trained}) rarely takes more than {highest:.2g}, and the loss may only rise"
            )
