"""From a config to what every verb runs: prepared data, the task, the model. Used by every verb."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import tempfile
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bigft import __version__
from bigft.config.deepspeed import deepspeed_config, effective_zero_stage
from bigft.config.errors import BadInput, Problem, collect
from bigft.config.fields import Decides, options_that_decide
from bigft.config.sections import DataConfig, RunConfig, TrainConfig
from bigft.config.tasks import CausalLM
from bigft.data.formats.files import check_is_regular
from bigft.data.order import Order
from bigft.data.prepare import (
    PreparedSplit,
    appearing,
    cache_root,
    fingerprint,
    prepare_split,
    prepared,
)
from bigft.data.records import Feature
from bigft.data.source import input_files, version_of
from bigft.data.tag_spellings import Tagging
from bigft.models.adapt import (
    adapt_model,
    check_shardable,
    freezes_base,
    load_options,
    virtual_tokens,
)
from bigft.models.load import (
    Limit,
    check_vocabulary,
    load_model,
    load_model_config,
    load_tokenizer,
    max_positions,
    tokenizer_limit,
    tokenizer_notes,
)
from bigft.models.sharded import load_sharded
from bigft.runtime.seeding import seed_everything
from bigft.tasks import TASKS
from bigft.tasks.causal_lm.template_source import writes_clock
from bigft.tasks.protocol import Reading, Task
from bigft.tasks.unlearnable import unlearnable

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

LIBRARIES = ("torch", "transformers", "deepspeed", "peft", "bitsandbytes", "datasets", "tokenizers")
VOCABULARY = "task.json"


@dataclass(frozen=True)
class Run:
    """A config whose data is prepared. Made without touching an accelerator.

    splits: "train", "validation", "test", as far as the config names them.
    notes: what a user should know of the data, one sentence each.
    data_fingerprint: 64 hex digits of what is trained on, wherever its files lie.
    clock: the day that the chat template took for today.
    tagging: how the training set writes its tags; None where the task has none.
    """

    config: RunConfig
    task: Task
    tokenizer: PreTrainedTokenizerBase
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
        model = adapt_model(model, options, self.tokenizer)
        if effective_zero_stage(config) == 3:
            check_shardable(model)
        self.task.attach_head(model)
        return model

    def shard_by(self, world_size: int) -> dict[str, Any] | None:
        """DeepSpeed's config where the model is born sharded (ZeRO-3), for `build_model`."""
        if effective_zero_stage(self.config) != 3 or self.config.adapt.method == "qlora":
            return None
        return deepspeed_config(self.config, world_size)

    def probe_features(self, number: int) -> list[Feature]:
        """A few training rows, the shortest that have a target: to try a model out on."""
        train = self.splits["train"]
        rows = np.flatnonzero(train.num_targets)
        rows = rows[np.argsort(train.lengths[rows], kind="stable")][:number]
        return [train.feature(int(row)) for row in rows]

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


def prepare(
    config: RunConfig,
    labels: Sequence[str] | None = None,
    tagging: Tagging | None = None,
    clock: date | None = None,
) -> Run:
    """Reads, checks, encodes and caches the data of a run; on a second call only opens the cache.

    labels, tagging: of a model that is there already; None: those of the data.
    clock: the day that a chat template takes for today; None: the present one.
    Raises BadInput, naming key or file and line, for everything that is wrong with data, tokenizer
    or the model's config.
    """
    task_class = TASKS[config.task.name]
    clock = clock or date.today()
    problems: list[Problem] = []
    with collect(problems):
        tokenizer = load_tokenizer(config.model, config.task.reads)
        model_config = load_model_config(config.model)
        check_vocabulary(tokenizer, model_config)
        limit = row_limit(config, tokenizer, model_config)
        notes = tokenizer_notes(tokenizer) + _overridden(tokenizer, limit)
        max_length, cut_by = limit or (None, "")
    if problems:
        # What is wrong with the data is told in the same go.
        with collect(problems):
            read, _ = task_class.read(config)
            for records in read.values():
                with collect(problems):
                    deque(records, maxlen=0)
        raise BadInput(problems)

    def build(directory: Path) -> None:
        reading = Reading(tagging)
        splits, found = task_class.read(config, reading)
        names = list(labels or found)
        task = task_class(config, tokenizer, names, max_length, cut_by, clock)
        problems: list[Problem] = []
        written: dict[str, PreparedSplit] = {}
        for name, records in splits.items():
            with collect(problems):
                workers = config.data.preprocessing_num_workers
                written[name] = prepare_split(directory, name, records, task.encode, workers)
        if "train" in written:
            problems += unlearnable(written["train"])
        if problems:
            raise BadInput(problems)
        vocabulary = {
            "labels": names,
            "splits": list(splits),
            "notes": reading.notes + _notes(written),
            "tagging": reading.tagging,
            "content": _content(directory, names),
        }
        with appearing(directory / VOCABULARY) as path:
            path.write_text(json.dumps(vocabulary), encoding="utf-8")

    is_dated = isinstance(config.task, CausalLM) and writes_clock(
        tokenizer, config.data.chat_template
    )
    key = fingerprint(
        {
            "task": options_that_decide(config.task, Decides.ROWS),
            "data": options_that_decide(config.data, Decides.ROWS),
            "tokenizer": _identity(tokenizer),
            "max_length": [max_length, cut_by],
            "labels": labels and list(labels),
            "clock": clock.isoformat() if is_dated else None,
            "dataset": version_of(config.data),
            "tagging": tagging,
            "bigft": __version__,
        },
        [*input_files(config.data), *_template(config.data)],
    )
    directory = prepared(cache_root(), key, build)
    vocabulary = json.loads((directory / VOCABULARY).read_text(encoding="utf-8"))
    task = task_class(config, tokenizer, vocabulary["labels"], max_length, cut_by, clock)
    splits = {name: PreparedSplit(directory, name) for name in vocabulary["splits"]}
    notes += vocabulary["notes"] + _row_notes(config.data, splits)
    for name, split in splits.items():
        if name != "train":
            notes += [note for note in task.notes(split) if note not in notes]
    if is_dated:
        notes.append(
            f"the chat template writes the clock: in all rows of this run it is {clock}, on "
            "whatever day it goes on; `bigft predict` writes the present"
        )
    found, content = Tagging.of(vocabulary["tagging"]), vocabulary["content"]
    return Run(config, task, tokenizer, splits, notes, content, clock, found)


def global_batch(config: RunConfig, world_size: int) -> dict[str, int]:
    """What one step is made of, as an argument of Order: samples, or tokens of full rows."""
    train, data = config.train, config.data
    if train.global_batch_size is not None:
        return {"global_batch_size": train.global_batch_size}
    if train.global_batch_tokens is not None:
        return {"global_batch_tokens": train.global_batch_tokens}
    rows = train.per_device_train_batch_size * (train.gradient_accumulation_steps or 1) * world_size
    if data.packing:
        assert data.max_seq_length is not None
        return {"global_batch_tokens": rows * data.max_seq_length}
    return {"global_batch_size": rows}


def row_limit(
    config: RunConfig, tokenizer: PreTrainedTokenizerBase, model_config: PretrainedConfig
) -> Limit | None:
    """Tokens of a row at most, and what says so; None: no bound. What the tokenizer says does not
    count where the config says otherwise.

    Raises BadInput if the model cannot take as many, or has no room beside its virtual tokens.
    """
    asked, virtual = config.data.max_seq_length, virtual_tokens(config.adapt)
    positions, stated = max_positions(model_config, config.model), tokenizer_limit(tokenizer)
    if asked is not None or (positions and positions.source.endswith("model.config_overrides")):
        stated = None
    bound = min(filter(None, (positions, stated)), default=None)
    if bound is not None:
        if virtual >= bound.tokens:
            what = f"{virtual}, but the model has {bound.tokens} positions in all"
            raise BadInput(Problem("adapt.num_virtual_tokens", what, "give fewer"))
        bound = bound._replace(tokens=bound.tokens - virtual)
    if asked is None:
        return bound
    if bound is not None and asked > bound.tokens:
        what = f"{asked} tokens, but the model takes {bound.tokens}: {bound.source}"
        fix = f"give at most {bound.tokens}; longer samples are cut"
        raise BadInput(Problem("data.max_seq_length", what, fix))
    return Limit(asked, "data.max_seq_length")


def _overridden(tokenizer: PreTrainedTokenizerBase, limit: Limit | None) -> list[str]:
    """A note where rows are longer than the tokenizer is meant for. What is saved with the model
    says so too: other tools, and `Trained`, go by it."""
    stated = tokenizer_limit(tokenizer)
    if limit is None or stated is None or limit.tokens <= stated.tokens:
        return []
    tokenizer.model_max_length = limit.tokens
    return [
        f"rows hold up to {limit.tokens} tokens ({limit.source}), though model_max_length in "
        f"tokenizer_config.json is {stated.tokens}; the trained model's says {limit.tokens}"
    ]


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


def _template(data: DataConfig) -> list[str]:
    """The template's file, if there is one: the task tells of one that is missing."""
    file = data.chat_template
    if file is None or not Path(file).exists() or Path(file).is_dir():
        return []
    check_is_regular(file)
    return [file]


def compute_dtype(train: TrainConfig) -> str:
    """What the forward computes in, by torch's name."""
    return "bfloat16" if train.bf16 else "float16" if train.fp16 else "float32"


def _identity(tokenizer: PreTrainedTokenizerBase) -> list[Any]:
    """All of a tokenizer that decides which ids a text becomes."""
    if tokenizer.is_fast:
        inner = tokenizer.backend_tokenizer.to_str()
    else:
        with tempfile.TemporaryDirectory() as folder:
            files = sorted(map(Path, tokenizer.save_vocabulary(folder)))
            inner = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    return [inner, tokenizer.special_tokens_map, tokenizer.chat_template]


def _content(directory: Path, labels: list[str]) -> str:
    """A hash of the encoded training set: data, tokenizer and task options, but no paths."""
    digest = hashlib.sha256(json.dumps(labels).encode())
    for path in sorted(directory.glob("train-*-features.arrow")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _notes(splits: dict[str, PreparedSplit]) -> list[str]:
    """What the task has to say of the records, counted, and how many samples of one split occur in
    the training split too, by content."""
    notes = []
    for name, split in splits.items():
        for note, (count, first) in split.notes().items():
            known = f"{count} of {split.num_records} records of {name}"
            notes.append(f"{known} (first {first.where}) {note}")
        if name != "train" and "train" in splits:
            train = splits["train"].content_of_record
            if shared := int(np.isin(split.content_of_record, train).sum()):
                notes.append(
                    f"{shared} of {split.num_records} records of {name} occur in train too: "
                    f"scores on {name} flatter the model"
                )
    return notes


def _row_notes(data: DataConfig, splits: dict[str, PreparedSplit]) -> list[str]:
    """Rows without a target, and sentences that became several rows.

    Raises BadInput for every split without any target.
    """
    notes, problems = [], []
    for name, split in splits.items():
        empty = int((split.num_targets == 0).sum())
        if empty == len(split):
            key = f"data.{name}_file" if data.dataset_name is None else "data.dataset_name"
            what = f"every label of the {name} set is masked: there is nothing to learn or measure"
            problems.append(Problem(key, what, "check data.label_column_name"))
        elif empty:
            notes.append(f"{empty} of {len(split)} rows of {name} have no target and weigh nothing")
        if lost := int(split.lost_targets.sum()):
            whole = lost + int(split.num_targets.sum())
            notes.append(f"{lost} of {whole} targets of {name} are cut away ({lost / whole:.1%})")
        windows = np.bincount(split.record_of_row)
        if long := int((windows > 1).sum()):
            notes.append(
                f"{long} of {split.num_records} records of {name} became several rows, "
                f"{windows[windows > 1].sum()} in all"
            )
    if problems:
        raise BadInput(problems)
    return notes
