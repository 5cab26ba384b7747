"""From a config to prepared data: read, checked, encoded and cached. Used by every verb."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import deque
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigft import __version__
from bigft.config.errors import BadInput, Problem, collect
from bigft.config.fields import Decides, options_that_decide
from bigft.config.sections import DataConfig, RunConfig
from bigft.config.tasks import CausalLM
from bigft.data.cache import appearing, cache_root, fingerprint, prepared
from bigft.data.formats.files import check_is_regular, not_fetched
from bigft.data.prepare import PreparedSplit, prepare_split
from bigft.data.source import input_files, version_of
from bigft.data.tag_spellings import Tagging
from bigft.models.load import load_model_config
from bigft.models.tokenizers import check_vocabulary, load_tokenizer, tokenizer_notes
from bigft.tasks import TASKS
from bigft.tasks.causal_lm.template_source import writes_clock
from bigft.tasks.protocol import Reading
from bigft.tasks.unlearnable import unlearnable
from bigft.training.batch import overridden_limit, row_limit
from bigft.training.data_notes import record_notes, row_notes
from bigft.training.run import Run

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

VOCABULARY = "task.json"
# Of tokenizer_config.json, what changes rows or notes and is in no tokenizer.json.
SETTINGS = (
    *("truncation_side", "padding_side", "split_special_tokens", "clean_up_tokenization_spaces"),
    *("add_bos_token", "add_eos_token", "src_lang", "tgt_lang"),
)


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
        notes = tokenizer_notes(tokenizer) + overridden_limit(tokenizer, limit)
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
            "notes": reading.notes + record_notes(written),
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
            "tokenizer": identity(tokenizer),
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
    notes += vocabulary["notes"] + row_notes(config.data, splits)
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


def _template(data: DataConfig) -> list[str]:
    """The template's file, if there is one: the task tells of one that is missing."""
    file = data.chat_template
    if file is None or not Path(file).exists() or Path(file).is_dir():
        return []
    check_is_regular(file)
    if pointers := not_fetched(file):
        raise BadInput(pointers)
    return [file]


def identity(tokenizer: PreTrainedTokenizerBase) -> list[Any]:
    """All of a tokenizer that decides which ids a text becomes."""
    if tokenizer.is_fast:
        inner = tokenizer.backend_tokenizer.to_str()
    else:
        with tempfile.TemporaryDirectory() as folder:
            files = sorted(map(Path, tokenizer.save_vocabulary(folder)))
            inner = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    settings = [getattr(tokenizer, name, None) for name in SETTINGS]
    return [inner, tokenizer.special_tokens_map, tokenizer.chat_template, settings]


def _content(directory: Path, labels: list[str]) -> str:
    """A hash of the encoded training set: data, tokenizer and task options, but no paths."""
    digest = hashlib.sha256(json.dumps(labels).encode())
    for path in sorted(directory.glob("train-*-features.arrow")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()
