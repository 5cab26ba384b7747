"""Parquet files and directories of `datasets.save_to_disk`, as the same rows in JSON Lines.

Class numbers become their names where the table knows them, a column of JSON texts (Json of
`datasets`) the values that they spell, and a struct loses the keys that are null. A row's line is
its 1-based number.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from bigft.config.errors import BadInput, Problem
from bigft.data.formats.base import RawRow, ReadOptions
from bigft.data.formats.files import not_fetched
from bigft.data.formats.json_rows import NoJson, parse

if TYPE_CHECKING:
    import datasets
    import pyarrow

ROWS_AT_ONCE = 1024
NULLS_LEFT_OUT = (
    "have null keys in objects within objects (arguments of tool calls, schemas), which are left "
    "out: Arrow adds such keys where rows differ; should the source hold nulls itself, use JSON "
    "Lines, which keeps them"
)

Decode: TypeAlias = Callable[[Any], Any]


class BadValue(ValueError):
    """args: what, fix."""


def read_parquet(path: str, options: ReadOptions) -> Iterator[RawRow | Problem]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            table = Table(path, file.schema_arrow, _declared(file.schema_arrow), options)
            yield from table.rows(file.iter_batches(ROWS_AT_ONCE, columns=table.names))
    except (pyarrow.ArrowException, OSError) as error:
        raise BadInput(Problem(path, f"no readable Parquet file ({error})")) from error


def read_datasets(path: str, options: ReadOptions) -> Iterator[RawRow | Problem]:
    import datasets
    import pyarrow

    try:
        loaded = datasets.load_from_disk(path)
    # What is missing or damaged: a file, a key of its JSON, a feature's type, the Arrow data.
    except (OSError, ValueError, KeyError, TypeError, pyarrow.ArrowException) as error:
        found = f"no directory that `save_to_disk` wrote ({error})"
        raise BadInput(not_fetched(path) or Problem(path, found)) from error
    if isinstance(loaded, datasets.DatasetDict):
        splits = [str(Path(path) / str(split)) for split in loaded]
        raise BadInput(Problem(path, "a directory of splits", f"name one: {', '.join(splits)}"))
    yield from dataset_rows(path, loaded, options)


def dataset_rows(
    where: str, dataset: datasets.Dataset, options: ReadOptions
) -> Iterator[RawRow | Problem]:
    table = Table(where, dataset.features.arrow_schema, dataset.features, options)
    # As Arrow: `datasets` itself would decode images, and read "42" in a column of JSON as 42.
    arrow = dataset.select_columns(table.names).with_format("arrow")
    yield from table.rows(arrow.iter(ROWS_AT_ONCE))


class Table:
    """The columns of an Arrow table that can be read.

    names: theirs. The others, of types that JSON has none for, are left out.

    where: the table, for messages.  features: what each column was declared as, if it was.
    Raises BadInput for each of those that the task may use.
    """

    def __init__(
        self,
        where: str,
        schema: pyarrow.Schema,
        features: dict[str, Any],
        options: ReadOptions,
    ) -> None:
        self._where, self._options = where, options
        self._num_nulls = 0  # keys left out so far of what may be written as it is
        foreign = {field.name: _foreign(field.type) for field in schema}
        if problems := [
            Problem(
                f"{where}: column {name}",
                f"values of the Arrow type {type} are no text, number, list or object",
                "convert the column (a map to a struct, bytes to a string), or name another",
            )
            for name, type in foreign.items()
            if type is not None and options.uses(name)
        ]:
            raise BadInput(problems)
        self.names = [name for name, type in foreign.items() if type is None]
        self._steps: list[tuple[str, Decode]] = []
        for name in self.names:
            steps = (self._decoder(schema.field(name).type), class_namer(features.get(name)))
            self._steps += [(name, step) for step in steps if step is not None]

    def rows(self, batches: Iterable[Any]) -> Iterator[RawRow | Problem]:
        """batches: record batches or tables of the columns `names`."""
        rows = (row for batch in batches for row in batch.to_pylist())
        for number, fields in enumerate(rows, 1):
            yield self._row(number, fields)

    def _row(self, number: int, fields: dict[str, Any]) -> RawRow | Problem:
        notes: tuple[str, ...] = ()
        for name, step in self._steps:
            before = self._num_nulls
            try:
                fields[name] = None if fields[name] is None else step(fields[name])
            except BadValue as error:
                if self._options.uses(name):
                    return Problem(f"{self._where}:{number}: column {name}", *error.args)
            if self._num_nulls > before and self._options.uses(name):
                notes = (NULLS_LEFT_OUT,)
        return RawRow(number, fields, notes)

    def _decoder(self, type: pyarrow.DataType, is_inner: bool = False) -> Decode | None:
        """What makes of values of the type those of JSON; None where they are that already.

        is_inner: whether they stand within a struct. No task tells a null key of an outer one, as
        of a turn or a span, from a missing one; of an inner one templates write both.
        """
        import pyarrow
        from pyarrow import types

        if isinstance(type, pyarrow.JsonType):
            return _parsed
        if types.is_dictionary(type):
            return self._decoder(type.value_type, is_inner)
        if types.is_struct(type):
            of_key = {field.name: self._decoder(field.type, is_inner=True) for field in type}
            return self._struct(of_key, counts=is_inner)
        if _is_list(type) and (one := self._decoder(type.value_type, is_inner)):
            return lambda values: [value if value is None else one(value) for value in values]
        return None

    def _struct(self, of_key: dict[str, Decode | None], counts: bool) -> Decode:
        def decode(value: dict[str, Any]) -> dict[str, Any]:
            there = {key: inner for key, inner in value.items() if inner is not None}
            self._num_nulls += counts and len(value) - len(there)
            for key, inner in there.items():
                if of_this := of_key[key]:
                    there[key] = of_this(inner)
            return there

        return decode


def class_namer(feature: Any) -> Decode | None:
    """What turns class numbers within a value into names; None if such values hold none.

    A number of -1 is what `datasets` writes where there is no class: null. The function raises
    BadValue for another number that has no name.
    """
    import datasets

    if isinstance(feature, datasets.ClassLabel):
        return _class_names(feature.names)
    if isinstance(feature, datasets.List | datasets.LargeList):
        one = class_namer(feature.feature)
        return one and (lambda value: value and [one(element) for element in value])
    if isinstance(feature, dict):
        of_key = {key: name for key in feature if (name := class_namer(feature[key]))}
        return _names_within(of_key) if of_key else None
    return None


def _names_within(of_key: dict[str, Decode]) -> Decode:
    def name(value: Any) -> Any:
        if value is None:
            return None
        return value | {key: of_key[key](value[key]) for key in of_key if key in value}

    return name


def _class_names(names: list[str]) -> Decode:
    def name(value: Any) -> Any:
        if not isinstance(value, int):
            return value
        if 0 <= value < len(names):
            return names[value]
        if value == -1:
            return None
        shown = ", ".join(names[:5]) + ", ..." * (len(names) > 5)
        raise BadValue(
            f"the class {value}, but there are {len(names)} names ({shown}), from 0 on",
            "fix the number, or store the names that belong to it",
        )

    return name


def _parsed(text: str) -> Any:
    """`datasets` keeps the texts of a column of JSON as they are where it can read them as JSON,
    and its reader takes more for JSON than there is: 007 was a text."""
    try:
        return parse(text)
    except NoJson as error:
        if error.column is not None:
            return text
        raise BadValue(error.what, error.fix) from error


def _declared(schema: pyarrow.Schema) -> dict[str, Any]:
    """The features that `datasets` wrote into a Parquet file, as far as it knows them today."""
    import datasets

    features: dict[str, Any] = {}
    with suppress(ValueError, KeyError, TypeError):
        declared = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        for name in declared:
            with suppress(ValueError, KeyError, TypeError):
                features |= datasets.Features.from_dict({name: declared[name]})
    return features


def _is_list(type: pyarrow.DataType) -> bool:
    from pyarrow import types

    kinds = (types.is_list, types.is_large_list, types.is_fixed_size_list)
    views = (types.is_list_view, types.is_large_list_view)
    return any(is_kind(type) for is_kind in (*kinds, *views))


def _foreign(type: pyarrow.DataType) -> pyarrow.DataType | None:
    """The type, or the one within it, whose values JSON cannot hold; None if there is none.

    Dates may stand: they become text.
    """
    import pyarrow
    from pyarrow import types

    if types.is_dictionary(type) or _is_list(type):
        return _foreign(type.value_type)
    if types.is_struct(type):
        return next(filter(None, (_foreign(field.type) for field in type)), None)
    plain = (
        *(types.is_null, types.is_boolean, types.is_integer, types.is_floating),
        *(types.is_string, types.is_large_string, types.is_string_view),
        *(types.is_date, types.is_timestamp),
    )
    known = isinstance(type, pyarrow.JsonType) or any(is_kind(type) for is_kind in plain)
    return None if known else type
