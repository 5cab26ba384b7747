"""A config whose data is prepared: what every verb runs, and the model that it trains."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np

from bigft import __version__
from bigft.config.deepspeed import deepspeed_config, effective_zero_stage
from bigft.config.errors import BadInput, Problem
from bigft.config.sections import RunConfig, TrainConfig
from bigft.data.order import Order
from bigft.data.records import Row
from bigft.data.split import PreparedSplit
from bigft.data.tag_spellings import Tagging
from bigft.models.adapt import (
    adapt_model,
    check_new_is_trained,
    check_shardable,
    freezes_base,
    load_options,
)
from bigft.models.load import load_model, load_model_config
from bigft.models.sharded import load_sharded
from bigft.runtime.seeding import seed_everything
from bigft.tasks.protocol import Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel

LIBRARIES = ("torch", "transformers", "deepspeed", "peft", "bitsandbytes", "datasets", "tokenizers")


@dataclass(frozen=True)
class Run:
    """A config whose data is prepared. Made without touching an accelerator.

    splits: "train", "validation", "test", as far as the config names them.
    notes: what a user should know of the data, one sentence each.
    processor: a tokenizer, or an image processor.
    data_fingerprint: of what is trained on, wherever its files lie (bigft/data/fingerprint.py).
    clock: the day that the chat template took for today.
    tagging: how the training set writes its tags; None where the task has none.
    """

    config: RunConfig
    task: Task
    processor: Any
    splits: dict[str, PreparedSplit]
    notes: list[str]
    data_fingerprint: str
    clock: date
    tagging: Tagging | None

    def build_model(
        self, device: str = "cpu", shard_by: dict[str, Any] | None = None
    ) -> PreTrainedModel:
        """The model to train, the same on every rank, with its adapter and the task's head.

        What is trained is in fp32; a frozen base is in the dtype that training computes in.

        device: "meta" gives one without values, for its names and shapes.
        shard_by: DeepSpeed's config, under ZeRO-3: no rank ever holds the whole model. Collective.
        Raises BadInput if the weights do not fit the architecture, or options the labels.
        """
        config, options = self.config, self.config.adapt
        seed_everything(config.train.seed, "model")
        model_config = load_model_config(config.model, **self.task.model_options())
        auto_class = self.task.auto_class
        dtype = compute_dtype(config.train) if freezes_base(options) else "float32"
        if shard_by is not None:
            model = load_sharded(config.model, model_config, auto_class, shard_by, dtype)
        else:
            extra = {} if device == "meta" else load_options(options, dtype)
            model = load_model(
                config.model, model_config, auto_class, dtype=dtype, device=device, **extra
            )
        _check_layers(model, config)
        if config.train.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        seed_everything(config.train.seed, "adapter")
        model = adapt_model(model, options, self.processor)
        check_new_is_trained(model)
        if effective_zero_stage(config) == 3:
            check_shardable(model)
        self.task.attach_head(model)
        return model

    def shard_by(self, world_size: int) -> dict[str, Any] | None:
        """DeepSpeed's config where the model is born sharded (ZeRO-3), for `build_model`."""
        if effective_zero_stage(self.config) != 3 or self.config.adapt.method == "qlora":
            return None
        return deepspeed_config(self.config, world_size)

    def probe_rows(self, number: int) -> list[Row]:
        """A few training rows, the shortest that have a target: to try a model out on."""
        train = self.splits["train"]
        rows = np.flatnonzero(train.num_targets)
        rows = rows[np.argsort(train.lengths[rows], kind="stable")][:number]
        return [train.row(int(row)) for row in rows]

    def order(self, global_batch: dict[str, int]) -> Order:
        """The order of the training samples. global_batch: Order's arguments, by name."""
        data, train = self.config.data, self.splits["train"]
        options: dict[str, Any] = dict(global_batch)
        if data.packing:
            options["row_capacity"] = data.max_seq_length
            options["strategy"] = data.packing_strategy
        if data.interleave_probs is not None:
            options["source_of_sample"] = train.source_of_row(data.sources)
            options["shares"] = data.interleave_probs
        return Order(lengths=train.lengths, seed=self.config.train.seed, **options)


def versions() -> dict[str, str]:
    """What ran: bigft and the libraries that decide its numbers."""
    return {"bigft": __version__} | {name: importlib.metadata.version(name) for name in LIBRARIES}


def compute_dtype(train: TrainConfig) -> str:
    """What the forward computes in, by torch's name."""
    return "bfloat16" if train.bf16 else "float16" if train.fp16 else "float32"


def _check_layers(model: PreTrainedModel, config: RunConfig) -> None:
    """Raises BadInput if the layers cannot be called as the config asks for."""
    if config.train.gradient_checkpointing and not model.supports_gradient_checkpointing:
        what = f"true, but {type(model).__name__} cannot recompute its activations"
        raise BadInput(Problem("train.gradient_checkpointing", what, "set it to false"))
    dropped = [
        name for name, value in model.config.to_dict().items() if "layerdrop" in name and value
    ]
    if dropped and effective_zero_stage(config) == 3:
        what = f"the model's {dropped[0]} leaves layers out at random, others on each rank"
        fix = f"set model.config_overrides {{{dropped[0]}: 0.0}}, or parallel.zero_stage to 2"
        raise BadInput(Problem("parallel.zero_stage", what, fix))
