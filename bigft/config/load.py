"""A YAML file and `section.key=value` overrides become a RunConfig, or every reason why not."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from bigft.config.draft import COMMAND_LINE, Draft
from bigft.config.errors import BadInput, Problem
from bigft.config.keys import KEYS
from bigft.config.messages import explain
from bigft.config.not_yet import not_yet
from bigft.config.rules import Clash, contradictions, remarks
from bigft.config.sections import RunConfig
from bigft.config.yaml_text import KeyPath, dump

_STAND_INS = {
    "task": {"name": "token-classification"},
    "model": {"model_name_or_path": "?"},
    "train": {"output_dir": "?"},
}


@dataclass(frozen=True)
class LoadedConfig:
    """config: the run.  notes: lines for the user's eyes.  source: the file or "command line"."""

    config: RunConfig
    notes: list[str]
    source: str
    places: Mapping[KeyPath, str] = field(repr=False)

    def where(self, key: str) -> str:
        """What messages call the place of a key: `config.yaml:3: optim.learning_rate`."""
        *parent, _ = path = tuple(key.split("."))
        if path not in self.places and tuple(parent) in self.places and key not in KEYS:
            return self.places[tuple(parent)]  # of a mapping that an override gave in one
        return self.places.get(path, f"{self.source}: {key}")

    @contextmanager
    def located(self) -> Iterator[None]:
        """Problems of the block that name a key tell where the key is given, too."""
        try:
            yield
        except BadInput as refused:
            raise BadInput(
                [
                    replace(problem, where=self.where(problem.where))
                    if _is_key(problem.where)
                    else problem
                    for problem in refused.problems
                ]
            ) from refused


def _is_key(where: str) -> bool:
    """Whether it is a key, or a name in the mapping that one holds."""
    parent = where.rpartition(".")[0]
    return where in KEYS or ("." in parent and parent in KEYS)


def load_config(
    path: str | None, overrides: Sequence[str] = (), given_by: str = COMMAND_LINE
) -> LoadedConfig:
    """The config of a file (None: of the overrides alone), each override put over it.

    overrides: `section.key=value`, the value in YAML; a later one wins.
    given_by: what messages call the place of overrides.
    Raises BadInput with every problem there is.
    """
    draft = Draft(path or given_by, given_by)
    if path is not None:
        draft.read_file(path)
    for text in overrides:
        draft.override(text)
    for section in _STAND_INS:
        draft.values.setdefault(section, {})

    wrong: list[KeyPath] = []
    try:
        config = RunConfig.model_validate(draft.values)
    except ValidationError as error:
        for place, problem in explain(error, draft):
            wrong.append(place)
            draft.problems.append(problem)
        config = RunConfig.model_validate(_without(draft.values, wrong))

    def told(clashes: Iterable[Clash]) -> Iterator[Problem]:
        for keys, what, fix in clashes:
            if not any(_touches(key, path) for key in keys for path in wrong):
                yield Problem(draft.where(tuple(keys[0].split("."))), what, fix)

    problems = [*draft.problems, *told(contradictions(config)), *told(not_yet(config))]
    if problems:
        raise BadInput(problems)
    notes = [*draft.notes, *map(str, told(remarks(config)))]
    return LoadedConfig(config, notes, draft.source, draft.places)


def _without(values: dict[str, Any], wrong: Iterable[KeyPath]) -> dict[str, Any]:
    """The rest of the config, so that what else is wrong with it is told in the same go."""
    rest = copy.deepcopy(values)
    for path in wrong:
        section = str(path[0])
        if len(path) > 1:
            rest[section].pop(path[1], None)
        else:
            rest.pop(section)
    for section, stand_ins in _STAND_INS.items():
        rest[section] = stand_ins | rest.get(section, {})
    return rest


def _touches(key: str, path: KeyPath) -> bool:
    return all(mine == theirs for mine, theirs in zip(key.split("."), path, strict=False))


def check_batch(config: RunConfig, world_size: int) -> None:
    """Raises BadInput if a stated accumulation cannot make the stated global batch.

    Without a stated accumulation it is derived, and every global batch is possible.
    """
    train = config.train
    if not (train.global_batch_size and train.gradient_accumulation_steps):
        return
    made = train.per_device_train_batch_size * train.gradient_accumulation_steps * world_size
    if made != train.global_batch_size:
        raise BadInput(
            Problem(
                "train.global_batch_size",
                f"{train.global_batch_size}, but train.per_device_train_batch_size "
                f"({train.per_device_train_batch_size}) * train.gradient_accumulation_steps "
                f"({train.gradient_accumulation_steps}) * processes ({world_size}) is {made}",
                "leave train.gradient_accumulation_steps out: it is derived",
            )
        )


def resolved_yaml(config: RunConfig, paths: Callable[[str], str] | None = None) -> str:
    """The whole config, defaults included, as YAML that loads again to an equal config.

    paths: what to write in the place of each path (`wherever_read`).
    """
    return dump(config.model_dump(mode="json", context=paths))


def json_schema() -> dict[str, Any]:
    """The JSON schema of a config file; editors complete and check with it."""
    return RunConfig.model_json_schema()
