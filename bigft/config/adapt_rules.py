"""Contradictions of sections adapt and optim, and of what parallel makes of both."""

from __future__ import annotations

from collections.abc import Iterator

from bigft.config.adapt import Freeze, Ia3
from bigft.config.clash import Clash
from bigft.config.optim import OptimConfig
from bigft.config.sections import RunConfig
from bigft.config.tasks import CausalLM, Seq2Seq

WHOLE = ("full", "head", "freeze")  # these leave a model behind, the others an adapter
VIRTUAL = ("prompt", "prefix", "p-tuning")
# The keys of OptimConfig that an optimizer does not know, by a part of its name.
UNUSED = {
    "rmsprop": ("adam_beta1",),
    "lion": ("adam_epsilon",),
    "sgd_8bit": ("adam_beta2", "adam_epsilon"),
    "sgd": ("adam_beta1", "adam_beta2", "adam_epsilon"),
}


def adapt_contradictions(config: RunConfig) -> Iterator[Clash]:
    adapt = config.adapt
    if adapt.method not in WHOLE:
        yield from _adapter(config)
    if adapt.method in VIRTUAL:
        yield from _virtual_tokens(config)
    if isinstance(adapt, Freeze) and not (
        adapt.freeze_embeddings or adapt.freeze_layers or adapt.freeze_patterns
    ):
        yield Clash(
            ("adapt.method", "adapt.freeze_embeddings"),
            "freeze, but nothing is to be frozen",
            "set adapt.method to full, or adapt.freeze_layers or adapt.freeze_patterns",
        )
    if isinstance(adapt, Ia3) and adapt.feedforward_modules and not adapt.target_modules:
        yield Clash(
            ("adapt.feedforward_modules", "adapt.target_modules"),
            "given without adapt.target_modules, of which they are a part",
            "name both",
        )
    yield from _rates(config)
    yield from _optimizer(config)


def _adapter(config: RunConfig) -> Iterator[Clash]:
    method = config.adapt.method
    if config.model.from_scratch:
        yield Clash(
            ("model.from_scratch", "adapt.method"),
            f"true, but adapt.method {method} saves an adapter: the random weights that it "
            "belongs on would be lost",
            "set adapt.method to full, or start from a saved model",
        )


def _virtual_tokens(config: RunConfig) -> Iterator[Clash]:
    method = config.adapt.method
    if config.data.packing:
        yield Clash(
            ("data.packing", "adapt.method"),
            f"true, but adapt.method {method} puts its virtual tokens before the first sample of "
            "a row only",
            "set data.packing to false, or adapt.method to lora",
        )
    if method == "prefix" and config.train.gradient_checkpointing:
        yield Clash(
            ("train.gradient_checkpointing", "adapt.method"),
            "true, but adapt.method prefix needs the cache that it does without",
            "set it to false, or adapt.method to prompt or lora",
        )
    if method == "prefix" and not isinstance(config.task, CausalLM | Seq2Seq):
        yield Clash(
            ("adapt.method", "task.name"),
            f"prefix, but the models of task {config.task.name} read no keys of earlier tokens",
            "choose prompt, p-tuning or lora",
        )


def _rates(config: RunConfig) -> Iterator[Clash]:
    optim, method = config.optim, config.adapt.method
    if optim.head_learning_rate is not None and config.task.answers_in == "tokens":
        yield Clash(
            ("optim.head_learning_rate", "task.name"),
            f"given, but task {config.task.name} has no new head: its own is pretrained",
            "leave it out",
        )
    if optim.layerwise_lr_decay is not None and method in ("head", *VIRTUAL):
        yield Clash(
            ("optim.layerwise_lr_decay", "adapt.method"),
            f"given, but adapt.method {method} trains no layers of the model",
            "leave it out",
        )


def _optimizer(config: RunConfig) -> Iterator[Clash]:
    optim, offload = config.optim, config.parallel.offload_optimizer
    if "8bit" in optim.optim and offload != "none":
        yield Clash(
            ("optim.optim", "parallel.offload_optimizer"),
            f"{optim.optim} keeps a small state on the GPU, but parallel.offload_optimizer "
            f"{offload} keeps it elsewhere, where 8 bits are slow",
            "choose cpu_adam, or set parallel.offload_optimizer to none",
        )
    if optim.optim == "cpu_adam" and offload == "none":
        yield Clash(
            ("optim.optim", "parallel.offload_optimizer"),
            "cpu_adam, but the optimizer's state is not on the CPU",
            "set parallel.offload_optimizer to cpu, or optim.optim to adamw_torch",
        )
    if optim.optim == "sgd_8bit" and optim.adam_beta1 == 0:
        yield Clash(
            ("optim.adam_beta1", "optim.optim"),
            "0, but it is the momentum of sgd_8bit, whose 8-bit state is just that",
            "give more than 0, or set optim.optim to sgd",
        )


def unused_options(optim: OptimConfig) -> Iterator[Clash]:
    """Options of Adam that were set for an optimizer that has none."""
    unused = next((keys for part, keys in UNUSED.items() if part in optim.optim), ())
    for key in unused:
        value = getattr(optim, key)
        if value != OptimConfig.model_fields[key].default:
            what = f"{value:g} is not used: optim.optim is {optim.optim}"
            yield Clash((f"optim.{key}", "optim.optim"), what)
