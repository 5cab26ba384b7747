"""Text classification on a tokenizer of letters: the task, its records and prompts."""

from __future__ import annotations

from typing import Any

from tiny import letter_tokenizer
from tokenizers.processors import TemplateProcessing

from bigft.config.sections import RunConfig
from bigft.data.records import Record
from bigft.models.limits import Limit
from bigft.tasks.protocol import Setting
from bigft.tasks.text_classification import TextClassification

SINGLE, MULTI, REGRESSION = (
    *("single_label_classification", "multi_label_classification"),
    "regression",
)
LABELS = ["bad", "good", "none"]


def config(**sections: dict[str, Any]) -> RunConfig:
    given: dict[str, Any] = {
        "task": {"name": "text-classification"},
        "model": {"model_name_or_path": "unused"},
        "train": {"output_dir": "unused"},
    }
    for name, keys in sections.items():
        given[name] = given.get(name, {}) | keys
    return RunConfig.model_validate(given)


def pair_tokenizer() -> Any:
    tokenizer = letter_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


def task(
    problem_type: str = SINGLE,
    max_length: int | None = None,
    tokenizer: Any = None,
    counts: list[int] | None = None,
    **sections: dict[str, Any],
) -> TextClassification:
    limit = Limit(max_length, "data.max_seq_length") if max_length else None
    labels = ["stars"] if problem_type == REGRESSION else LABELS
    facts = {"problem_type": problem_type, "label_counts": counts or [1, 1, 1]}
    tokenizer = tokenizer or pair_tokenizer()
    setting = Setting(config(**sections), tokenizer, labels, limit, facts=facts)
    return TextClassification(setting)


def record(text: str = "bob saw", label: Any = "good", **fields: Any) -> Record:
    return Record(0, {"text": text, "label": label, **fields}, "train.jsonl", 7)


def prompt(one: TextClassification, given: Any = "bob") -> Record:
    return one.prompt(given, 0, "stdin", 1)
