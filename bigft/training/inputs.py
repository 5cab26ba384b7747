"""From a config to prepared data: read, checked, encoded and cached. Used by every verb."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Any

from bigft import __version__
from bigft.config.errors import BadInput, Problem, collect
from bigft.config.fields import Decides, options_that_decide
from bigft.config.sections import DataConfig, RunConfig
from bigft.data.cache import appearing, cache_root, fingerprint, prepared
from bigft.data.fingerprint import content
from bigft.data.formats.files import check_is_regular, not_fetched
from bigft.data.prepare import prepare_split
from bigft.data.source import input_files, version_of
from bigft.data.split import PreparedSplit
from bigft.data.tag_spellings import Tagging
from bigft.models.load import load_model_config
from bigft.models.processors import (
    check_vocabulary,
    identity,
    load_processor,
    processor_notes,
)
from bigft.tasks import TASKS
from bigft.tasks.protocol import Reading, Setting
from bigft.tasks.unlearnable import unlearnable
from bigft.training.batch import overridden_limit, row_limit
from bigft.training.data_notes import record_notes, row_notes
from bigft.training.run import Run

VOCABULARY = "task.json"


@dataclass(frozen=True, slots=True)
class Known:
    """What a run that is there already says of data; None: what the data says itself.

    labels: of its model, by id.  facts: of `Task.facts`, as its model's config says them.
    tagging: how its training set writes tags.
    clock: the day that its chat template took for today; None: the present one.
    """

    labels: Sequence[str] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    tagging: Tagging | None = None
    clock: date | None = None


def prepare(
    config: RunConfig,
    known: Known = Known(),
) -> Run:
    """Reads, checks, encodes and caches the data of a run; on a second call only opens the cache.

    Raises BadInput, naming key or file and line, for everything that is wrong with data, tokenizer
    or the model's config.
    """
    task_class = TASKS[config.task.name]
    clock = known.clock or date.today()
    problems: list[Problem] = []
    with collect(problems):
        processor = load_processor(config.model, config.task.reads)
        model_config = load_model_config(config.model)
        check_vocabulary(processor, model_config)
        limit = row_limit(config, processor, model_config)
        notes = processor_notes(processor) + overridden_limit(processor, limit)
        setting = Setting(config, processor, limit=limit, clock=clock)
    if problems:
        # What is wrong with the data is told in the same go.
        with collect(problems):
            for records in task_class.read(config).splits.values():
                with collect(problems):
                    deque(records, maxlen=0)
        raise BadInput(problems)

    def build(directory: Path) -> None:
        reading = Reading(known.tagging, dict(known.facts))
        splits, found = task_class.read(config, reading)
        names = list(known.labels or found)
        task = task_class(replace(setting, labels=names, facts=reading.facts))
        problems: list[Problem] = []
        written: dict[str, PreparedSplit] = {}
        for name, records in splits.items():
            with collect(problems):
                workers = config.data.preprocessing_num_workers
                written[name] = prepare_split(directory, name, records, task.encode_all, workers)
        if "train" in written:
            problems += unlearnable(written["train"])
        if problems:
            raise BadInput(problems)
        vocabulary = {
            "labels": names,
            "facts": reading.facts,
            "splits": list(splits),
            "notes": reading.notes + record_notes(written),
            "tagging": reading.tagging,
            "content": content(written["train"], names) if "train" in written else "",
        }
        with appearing(directory / VOCABULARY) as path:
            path.write_text(json.dumps(vocabulary), encoding="utf-8")

    is_dated = task_class.writes_clock(config, processor)
    key = fingerprint(
        {
            "task": options_that_decide(config.task, Decides.ROWS),
            "data": options_that_decide(config.data, Decides.ROWS),
            "processor": identity(processor),
            "max_length": [setting.max_length, setting.cut_by],
            "labels": known.labels and list(known.labels),
            "clock": clock.isoformat() if is_dated else None,
            "dataset": version_of(config.data),
            "facts": dict(known.facts),
            "tagging": known.tagging,
            "bigft": __version__,
        },
        [*input_files(config.data), *_template(config.data)],
    )
    directory = prepared(cache_root(), key, build)
    vocabulary = json.loads((directory / VOCABULARY).read_text(encoding="utf-8"))
    task = task_class(replace(setting, labels=vocabulary["labels"], facts=vocabulary["facts"]))
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
    found = Tagging.of(vocabulary["tagging"])
    return Run(config, task, processor, splits, notes, vocabulary["content"], clock, found)


def _template(data: DataConfig) -> list[str]:
    """The template's file, if there is one: the task tells of one that is missing."""
    file = data.chat_template
    if file is None or not Path(file).exists() or Path(file).is_dir():
        return []
    check_is_regular(file)
    if pointers := not_fetched(file):
        raise BadInput(pointers)
    return [file]
