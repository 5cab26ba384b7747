"""What every section is made of: its base class and the types that keys share."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterator
from enum import Enum
from typing import Annotated, Any, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SerializationInfo,
)


class Section(BaseModel):
    """Keys of one mapping: unknown ones are refused, and nothing changes after loading.

    strict: `learning_rate: true` or `seed: "42"` is a mistake, not a number.
    """

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


def as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str) else as_tuple(value)


def _none_or_many(value: Any) -> Any:
    return () if value is None else _one_or_many(value)


def _dumped_path(path: str, info: SerializationInfo) -> str:
    return info.context(path) if info.context else path


def split_key(name: str) -> tuple[str, str | None]:
    """The path, and of `FILE#KEY` the key: which list of a JSON file's object is meant."""
    path, mark, key = name.rpartition("#")
    is_key = bool(mark) and not os.path.exists(name) and os.path.exists(path)
    return (path, key) if is_key else (name, None)


def wherever_read(path: str) -> str:
    """The path as it means the same in every directory: absolute. What does not exist is the name
    of something on the hub, and stays."""
    exists = os.path.exists(split_key(path)[0])
    return str(pathlib.Path(path).absolute()) if exists else path


RUN_FILE, RUN_MODEL = "run.json", "model"  # of a run directory


def model_of_run(path: str) -> str:
    """Of a run directory the directory of the model that the run leaves; any other path itself."""
    is_run = os.path.isfile(os.path.join(path, RUN_FILE))
    is_model = os.path.isfile(os.path.join(path, "config.json"))
    return os.path.join(path, RUN_MODEL) if is_run and not is_model else path


class Decides(Enum):
    """What an option of data or task decides, stated beside its type: `Annotated[bool, Decides.…]`.

    ROWS: what becomes of a record, where nothing is stated. It is in the key of the cache, and a
    run that goes on must keep the rows.  BATCHES: how rows are ordered, joined or changed while
    they are trained on. Not in the key, but a run that goes on must keep it.  NEITHER: how answers
    are generated and measured, or how fast something is done.
    """

    ROWS = "rows"
    BATCHES = "batches"
    NEITHER = "neither"


def options_that_decide(section: Section, what: Decides) -> dict[str, Any]:
    """The options of the section that decide this, by name, as JSON values."""
    stated = {
        name: next((each for each in field.metadata if isinstance(each, Decides)), Decides.ROWS)
        for name, field in type(section).model_fields.items()
    }
    chosen = {name for name, decides in stated.items() if decides is what}
    return section.model_dump(mode="json", include=chosen)


Count = Annotated[int, Field(gt=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Path = Annotated[
    str,
    Field(min_length=1),
    AfterValidator(os.path.expanduser),
    PlainSerializer(_dumped_path),  # model_dump(context=…): what is made of every path
]
ModelPath = Annotated[Path, AfterValidator(model_of_run)]
Texts = Annotated[
    tuple[str, ...], BeforeValidator(_one_or_many, json_schema_input_type=str | list[str])
]
Paths = Annotated[
    tuple[Path, ...], BeforeValidator(_none_or_many, json_schema_input_type=str | list[str] | None)
]
Modules = Annotated[str | tuple[str, ...], BeforeValidator(as_tuple)]
Column = Annotated[int, Field(ge=0)] | str
Columns = Annotated[
    Column | Annotated[tuple[Column, ...], Field(min_length=1)],
    BeforeValidator(as_tuple, json_schema_input_type=Column | list[Column]),
]


def sections_in(annotation: Any) -> Iterator[type[Section]]:
    """Every Section that a field's annotation names, through unions and Annotated."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        yield annotation
    for inner in get_args(annotation):
        yield from sections_in(inner)


def names(choices: Any, tag: str) -> tuple[str, ...]:
    """The names by which the members of a union of Sections are told apart."""
    return tuple(section.model_fields[tag].default for section in sections_in(choices))
