"""From a config to what every verb runs: prepared data, the task, the model. Used by every verb."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bigft import __version__
from bigft.config.errors import BadInput, Problem, collect
from bigft.config.sections import DataConfig, RunConfig
from bigft.data.order import Order
from bigft.data.prepare import (
    PreparedSplit,
    cache_root,
    fingerprint,
    prepare_split,
    prepared,
)
from bigft.data.records import Batch, Record
from bigft.data.source import input_files
from bigft.models.adapt import ADAPTERS
from bigft.models.load import (
    check_vocabulary,
    load_model,
    load_model_config,
    load_tokenizer,
    max_positions,
)
from bigft.runtime.seeding import seed_everything
from bigft.tasks import TASKS
from bigft.tasks.protocol import Task

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LIBRARIES = ("torch", "transformers", "deepspeed", "peft", "bitsandbytes", "datasets", "tokenizers")
VOCABULARY = "task.json"


@dataclass(frozen=True)
class Run:
    """A config whose data is prepared. Made without touching an accelerator.

    splits: "train", "validation", "test", as far as the config names them.
    notes: what a user should know of the data, one sentence each.
    data_fingerprint: 64 hex digits of what is trained on, wherever its files lie.
    """

    config: RunConfig
    task: Task
    tokenizer: PreTrainedTokenizerBase
    splits: dict[str, PreparedSplit]
    notes: list[str]
    data_fingerprint: str

    def build_model(self, device: str = "cpu") -> PreTrainedModel:
        """The model to train, in fp32, the same on every rank, with the task's head.

        device: "meta" gives one without values, for its names and shapes.
        Raises BadInput if the weights do not fit the architecture, or options the labels.
        """
        config = self.config
        seed_everything(config.train.seed, "model")
        model_config = load_model_config(config.model, **self.task.model_options())
        model = load_model(config.model, model_config, self.task.auto_class, device=device)
        if config.train.gradient_checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
            model.config.use_cache = False
        model = ADAPTERS[config.adapt.method].apply(model, config.adapt)
        self.task.attach_head(model)
        return model

    def probe_batch(self, num_rows: int = 4) -> Batch:
        """A few training rows, the shortest that have a target: to try a model out on."""
        train = self.splits["train"]
        rows = np.flatnonzero(train.num_targets)
        rows = rows[np.argsort(train.lengths[rows], kind="stable")][:num_rows]
        return self.task.collate([train.feature(int(row)) for row in rows])

    def order(self, global_batch: dict[str, int]) -> Order:
        """The order of the training samples. global_batch: Order's argument, by its name."""
        return Order(
            lengths=self.splits["train"].lengths, seed=self.config.train.seed, **global_batch
        )


def versions() -> dict[str, str]:
    """What ran: bigft and the libraries that decide its numbers."""
    return {"bigft": __version__} | {name: importlib.metadata.version(name) for name in LIBRARIES}


def prepare(config: RunConfig, labels: Sequence[str] | None = None) -> Run:
    """Reads, checks, encodes and caches the data of a run; on a second call only opens the cache.

    labels: of a model that is there already; None: those of the data.
    Raises BadInput, naming key or file and line, for everything that is wrong with data, tokenizer
    or the model's config.
    """
    task_class = TASKS[config.task.name]
    problems: list[Problem] = []
    with collect(problems):
        tokenizer = load_tokenizer(config.model)
        model_config = load_model_config(config.model)
        check_vocabulary(tokenizer, model_config)
        max_length = window_length(config.data, max_positions(tokenizer, model_config))
    if problems:
        with collect(problems):
            task_class.read(config)  # what is wrong with the data is told in the same go
        raise BadInput(problems)

    def build(directory: Path) -> None:
        splits, found = task_class.read(config)
        names = list(labels or found)
        task = task_class(config, tokenizer, names, max_length)
        problems: list[Problem] = []
        for name, records in splits.items():
            with collect(problems):
                prepare_split(
                    directory, name, records, task.encode, config.data.preprocessing_num_workers
                )
        if problems:
            raise BadInput(problems)
        vocabulary = {
            "labels": names,
            "splits": list(splits),
            "notes": _notes(splits),
            "content": _content(directory, names),
        }
        (directory / VOCABULARY).write_text(json.dumps(vocabulary), encoding="utf-8")

    key = fingerprint(
        {
            "task": config.task.model_dump(mode="json"),
            "data": config.data.model_dump(mode="json", exclude={"preprocessing_num_workers"}),
            "tokenizer": tokenizer.backend_tokenizer.to_str(),
            "max_length": max_length,
            "labels": labels and list(labels),
            "bigft": __version__,
        },
        input_files(config.data),
    )
    directory = prepared(cache_root(), key, build)
    vocabulary = json.loads((directory / VOCABULARY).read_text(encoding="utf-8"))
    task = task_class(config, tokenizer, vocabulary["labels"], max_length)
    splits = {name: PreparedSplit(directory, name) for name in vocabulary["splits"]}
    notes = vocabulary["notes"] + _row_notes(config.data, splits)
    return Run(config, task, tokenizer, splits, notes, vocabulary["content"])


def global_batch(config: RunConfig, world_size: int) -> dict[str, int]:
    """What one step is made of, as an argument of Order: samples or padded tokens."""
    train = config.train
    if train.global_batch_tokens is not None:
        return {"global_batch_tokens": train.global_batch_tokens}
    if train.global_batch_size is not None:
        return {"global_batch_size": train.global_batch_size}
    accumulation = train.gradient_accumulation_steps or 1
    return {"global_batch_size": train.per_device_train_batch_size * accumulation * world_size}


def window_length(data: DataConfig, positions: int | None) -> int | None:
    """Tokens of a row at most; None: no bound. Raises BadInput if the model cannot take as many."""
    if (
        data.max_seq_length is not None
        and positions is not None
        and data.max_seq_length > positions
    ):
        raise BadInput(
            Problem(
                "data.max_seq_length",
                f"{data.max_seq_length} tokens, but the model takes {positions}",
                f"give at most {positions}; longer sentences are cut into overlapping windows",
            )
        )
    return data.max_seq_length or positions


def _content(directory: Path, labels: list[str]) -> str:
    """A hash of the encoded training set: data, tokenizer and task options, but no paths."""
    digest = hashlib.sha256(json.dumps(labels).encode())
    for path in sorted(directory.glob("train-features.arrow")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _notes(splits: dict[str, list[Record]]) -> list[str]:
    """How many samples of one split occur in the training split too, by content."""
    contents = {
        name: Counter(json.dumps(record.fields.get("tokens", record.fields)) for record in records)
        for name, records in splits.items()
    }
    notes = []
    for name in splits:
        if name != "train" and "train" in contents:
            shared = sum(n for text, n in contents[name].items() if text in contents["train"])
            if shared:
                notes.append(
                    f"{shared} of {len(splits[name])} records of {name} occur in train too: "
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
        windows = np.bincount(split.record_of_row)
        if long := int((windows > 1).sum()):
            notes.append(
                f"{long} of {split.num_records} records of {name} are longer than a row: "
                f"cut into {windows[windows > 1].sum()} overlapping windows"
            )
    if problems:
        raise BadInput(problems)
    return notes
