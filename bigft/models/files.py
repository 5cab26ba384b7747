"""The safetensors files of a model, read by the names of its parameters and buffers."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from safetensors import safe_open

from bigft.config.sections import ModelConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class StoredTensor(NamedTuple):
    """source: its name in the files.  name: its place in the model.  converter: transformers', with
    the pattern that matched, where several stored tensors make one parameter, or one several."""

    source: str
    shape: list[int]
    read: Callable[[], torch.Tensor]
    name: str
    pattern: str | None
    converter: Any


def stored_tensors(
    skeleton: PreTrainedModel, known: Mapping[str, torch.Tensor], files: Iterable[str | Path]
) -> Iterator[StoredTensor]:
    """Every tensor of the files that has a place in the model, in the order in which transformers
    loads them. Reads names and shapes; the values are read when they are asked for.

    known: the model's state dict, for its names.
    """
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import (
        WeightConverter,
        WeightRenaming,
        dot_natural_key,
        rename_source_key,
    )

    mapping = get_model_conversion_mapping(skeleton)
    renamings = [each for each in mapping if isinstance(each, WeightRenaming)]
    converters = [each for each in mapping if isinstance(each, WeightConverter)]
    by_pattern = {pattern: each for each in converters for pattern in each.source_patterns}
    places, names = _places(files), dict(known)
    for source in sorted(places, key=dot_natural_key):
        path, shape = places[source]
        rename = functools.partial(
            rename_source_key,
            source,
            base_model_prefix=skeleton.base_model_prefix,
            meta_state_dict=names,
        )
        name, pattern = rename(renamings, converters)
        if name not in known and source in known:
            name, pattern = rename([], [])
        if name in known:
            read = functools.partial(_read, path, source)
            converter = None if pattern is None else by_pattern[pattern]
            yield StoredTensor(source, shape, read, name, pattern, converter)


def missing_parts(skeleton: PreTrainedModel, files: Iterable[str | Path]) -> list[str]:
    """Names of tensors that the files lack beside others that make one parameter with them, as some
    of a mixture's experts: what differs in these names occurs in every combination."""
    kinds: dict[tuple[int, int], set[tuple[str, ...]]] = {}
    for each in stored_tensors(skeleton, skeleton.state_dict(), files):
        if each.converter is not None:
            words = tuple(each.source.split("."))
            kinds.setdefault((id(each.converter), len(words)), set()).add(words)
    missing: list[str] = []
    for found in kinds.values():
        choices = [sorted(set(words)) for words in zip(*found, strict=True)]
        if math.prod(map(len, choices)) < 2 * len(found):  # or they are names of several kinds
            missing += [".".join(words) for words in product(*choices) if words not in found]
    return missing


def readers(model: PreTrainedModel, section: ModelConfig) -> dict[str, Callable[[], torch.Tensor]]:
    """What reads a stored tensor, by its place in the model."""
    stored = stored_tensors(model, model.state_dict(), weight_files(section))
    return {each.name: each.read for each in stored}


def weight_files(model: ModelConfig) -> list[str]:
    """The safetensors files of a model that was found."""
    from transformers.utils import SAFE_WEIGHTS_INDEX_NAME, SAFE_WEIGHTS_NAME
    from transformers.utils.hub import cached_file, cached_files

    name, revision = model.model_name_or_path, model.revision
    single = cached_file(
        name, SAFE_WEIGHTS_NAME, revision=revision, _raise_exceptions_for_missing_entries=False
    )
    if single is not None:
        return [single]
    index = cached_file(name, SAFE_WEIGHTS_INDEX_NAME, revision=revision)
    assert index is not None  # load_model has just read it
    of_tensors = json.loads(Path(index).read_text(encoding="utf-8"))["weight_map"]
    return cached_files(name, sorted(set(of_tensors.values())), revision=revision) or []


def quantised_tensor(files: Iterable[str | Path]) -> tuple[str, str] | None:
    """Name and type of a stored weight whose numbers are no plain floats; None: all are."""
    for path in files:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - not a mapping
                kind = file.get_slice(key).get_dtype()
                if key.endswith("weight") and kind.startswith(("I8", "U8", "F8", "F4")):
                    return key, kind
    return None


def _read(path: str | Path, name: str) -> torch.Tensor:
    # Opened anew for each tensor: pages that were read leave this process with the map.
    with safe_open(path, framework="pt") as file:
        return file.get_tensor(name)


def _places(files: Iterable[str | Path]) -> dict[str, tuple[str | Path, list[int]]]:
    """File and shape of every stored tensor, by its name in the files."""
    places = {}
    for path in files:
        with safe_open(path, framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - not a mapping
                places[key] = path, file.get_slice(key).get_shape()
    return places
