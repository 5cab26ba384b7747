"""Every key by its dotted name, the names that other tools give some of them, and the nearest."""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher

from bigft.config.fields import Section, sections_in
from bigft.config.sections import RunConfig
from bigft.config.yaml_text import KeyPath, dotted

ALIASES = {
    "base_model": "model.model_name_or_path",
    "batch_size": "train.per_device_train_batch_size",
    "cutoff_len": "data.max_seq_length",
    "epochs": "train.num_train_epochs",
    "evaluation_strategy": "train.eval_strategy",
    "lora_r": "adapt.r",
    "lora_rank": "adapt.r",
    "lora_target": "adapt.target_modules",
    "lora_target_modules": "adapt.target_modules",
    "lr": "optim.learning_rate",
    "lr_scheduler": "optim.lr_scheduler_type",
    "max_length": "data.max_seq_length",
    "micro_batch_size": "train.per_device_train_batch_size",
    "model_name": "model.model_name_or_path",
    "num_epochs": "train.num_train_epochs",
    "optimizer": "optim.optim",
    "sample_packing": "data.packing",
    "sequence_len": "data.max_seq_length",
    "warmup_ratio": "optim.warmup_steps",
}
CLOSE_ENOUGH = 0.7


def _keys(section: type[Section], prefix: str) -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield prefix + name
        for inner in sections_in(field.annotation):
            yield from _keys(inner, f"{prefix}{name}.")


KEYS = tuple(dict.fromkeys(_keys(RunConfig, "")))


def resolve_alias(path: KeyPath) -> KeyPath:
    """The path of the real key where `path` (at top level or in any section) ends in an alias."""
    if len(path) > 2 or dotted(path) in KEYS:
        return path
    real = ALIASES.get(str(path[-1]))
    return tuple(real.split(".")) if real else path


def owners(path: KeyPath) -> list[str]:
    """The tasks or methods that have this option: `adapt.r` -> lora, dora, qlora."""
    choices = RunConfig.model_fields[str(path[0])].annotation
    tag = "name" if path[0] == "task" else "method"
    return [
        section.model_fields[tag].default
        for section in sections_in(choices)
        if tag in section.model_fields and str(path[1]) in section.model_fields
    ]


def fix_of_unknown(path: KeyPath) -> str:
    """What to write instead of an unknown key: the nearest of all sections, or all of this one."""
    if dotted(path) in KEYS:
        return f"it is an option of {', '.join(owners(path))}"
    nearest = max(KEYS, key=lambda key: _likeness(key, path))
    if _likeness(nearest, path) >= CLOSE_ENOUGH:
        return f"did you mean {nearest}?"
    prefix = dotted(path[:-1])
    siblings = [key for key in KEYS if key.rpartition(".")[0] == prefix]
    return f"the keys here are {', '.join(key.rsplit('.')[-1] for key in siblings)}"


def _likeness(key: str, path: KeyPath) -> float:
    """0 to 1 by the last names; a key of the same section wins over its equal elsewhere."""
    section, _, leaf = key.rpartition(".")
    alike = SequenceMatcher(None, leaf, str(path[-1]).lower()).ratio()
    return alike + 0.01 * (section == dotted(path[:-1]))
