"""What a run leaves behind, put elsewhere: merged into its base, or in another dtype."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from bigft.config.errors import BadInput, Problem
from bigft.config.load import load_config
from bigft.config.sections import RunConfig
from bigft.data.source import splits_of
from bigft.runtime.clock import clock_of
from bigft.runtime.run_directory import RunDirectory
from bigft.training.export import (
    check_stored,
    replace_directory,
    tensors_to_store,
    write_model,
)
from bigft.training.run import compute_dtype
from bigft.training.trained import Trained, on_its_base

MERGEABLE = ("lora", "dora", "qlora", "ia3")
NO_SCORES = ("runtime", "samples", "samples_per_second")
REPORT = "merge.json"


class Merged(NamedTuple):
    """before, after: scores of the adapter on its base, and of what was written; {} without a
    split to measure on (None)."""

    dtype: str
    split: str | None
    before: dict[str, float]
    after: dict[str, float]

    @property
    def difference(self) -> dict[str, float]:
        return {name: self.after[name] - value for name, value in self.before.items()}

    def __str__(self) -> str:
        if self.split is None:
            return "not measured: the run's config names neither a validation nor a test set"
        rows = [(self.split, "adapter", "merged", "difference")]
        rows += [
            (name, f"{value:.6g}", f"{self.after[name]:.6g}", f"{self.difference[name]:+.2g}")
            for name, value in self.before.items()
        ]
        first = max(len(row[0]) for row in rows)
        return "\n".join(f"{row[0]:{first}}" + "".join(f"{x:>14}" for x in row[1:]) for row in rows)


def export_merged(directory: RunDirectory, output: Path, dtype: str | None = None) -> Merged:
    """Writes the run's adapter merged into its base, with the tokenizer, as plain transformers
    loads it, and measures both.

    Merges in fp32, a 4-bit base in what it stands for. dtype: of the files; None: what the run
    computed in. `merge.json` beside the weights holds the scores.
    Raises BadInput if the run has no adapter that can be merged, `output` holds something, or the
    weights do not fit the dtype.
    """
    check_output(output)
    directory.read()
    config = load_config(str(directory.config_file)).config
    if config.adapt.method not in MERGEABLE:
        is_whole = config.adapt.method in ("full", "head", "freeze")
        what = f"adapt.method {config.adapt.method} "
        what += "leaves a whole model" if is_whole else "adds no matrices to those of the model"
        fix = "leave --merge out" if is_whole else "its adapter works on its base: leave it out"
        raise BadInput(Problem("--merge", what, fix))
    dtype = dtype or compute_dtype(config.train)
    clock = clock_of(directory)
    trained = Trained.load(directory, clock=clock)
    task, processor, split = trained.task, trained.processor, _split(config)
    known = trained.known
    before = _scores(trained, split)
    del trained
    merged: list[Merged] = []

    def write(place: Path) -> None:
        adapted = on_its_base(config, task, directory.model, precise=True)
        model = adapted.merge_and_unload(safe_merge=True).to(getattr(torch, dtype))
        state_dict = tensors_to_store(model)
        _check_finite(state_dict, dtype)
        task.attach_head(model)  # which tells the model's configs how its answers begin and end
        write_model(model, processor, state_dict, place)
        check_stored(place, model, state_dict)
        del adapted, model, state_dict
        after = _scores(Trained.at(config, place, known), split)
        merged.append(Merged(dtype, split, before, after))
        report = merged[0]._asdict() | {"difference": merged[0].difference}
        (place / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")

    output.parent.mkdir(parents=True, exist_ok=True)
    replace_directory(output, write)
    return merged[0]


def export_copy(directory: RunDirectory, output: Path, dtype: str | None = None) -> None:
    """Writes what the run left in model/, a model or an adapter, with its floating-point weights
    in `dtype`; None: as they are.

    Raises BadInput if there is none, or `output` holds something.
    """
    check_output(output)
    directory.read()
    source = directory.model
    if not source.is_dir():
        raise BadInput(Problem(str(directory.path), "no model/ in it", "let the run finish first"))

    def write(place: Path) -> None:
        shutil.copytree(source, place)
        if dtype is not None:
            total = sum(_cast(path, dtype) for path in sorted(place.glob("*.safetensors")))
            for path, section, key, value in (
                (place / "config.json", None, "dtype", dtype),
                (place / "model.safetensors.index.json", "metadata", "total_size", total),
            ):
                if path.is_file():
                    content = json.loads(path.read_text(encoding="utf-8"))
                    (content if section is None else content[section])[key] = value
                    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")

    output.parent.mkdir(parents=True, exist_ok=True)
    replace_directory(output, write)


def check_output(output: Path) -> None:
    """Raises BadInput if the path is taken by anything but an empty directory."""
    if output.parent.exists() and not output.parent.is_dir():
        what = f"{output.parent} is a file"
        raise BadInput(Problem(f"--output {output}", what, "name another directory"))
    if output.exists() and not (output.is_dir() and not any(output.iterdir())):
        raise BadInput(Problem(f"--output {output}", "is there already", "name another directory"))


def _split(config: RunConfig) -> str | None:
    for split in ("validation", "test"):
        if getattr(config.data, f"{split}_file"):
            return split
    if config.data.dataset_name is None:
        return None
    there = splits_of(config.data)
    return next((split for split in ("validation", "test") if split in there), None)


def _scores(trained: Trained, split: str | None) -> dict[str, float]:
    if split is None:
        return {}
    batch_size = trained.config.train.per_device_eval_batch_size
    scores = trained.evaluate(split, batch_size).scores
    return {name: value for name, value in scores.items() if name not in NO_SCORES}


def _check_finite(tensors: Mapping[str, torch.Tensor], dtype: str) -> None:
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            what = f"{name} has values that {dtype} cannot hold"
            raise BadInput(Problem(f"--dtype {dtype}", what, "choose bfloat16 or float32"))


def _cast(path: Path, dtype: str) -> int:
    """Rewrites the file; the bytes of its tensors. Raises BadInput for values too large."""
    with safe_open(path, framework="pt") as file:
        metadata, tensors = file.metadata(), dict(_tensors(file))
    wanted = getattr(torch, dtype)
    tensors = {
        name: tensor.to(wanted) if tensor.is_floating_point() else tensor
        for name, tensor in tensors.items()
    }
    _check_finite(tensors, dtype)
    save_file(tensors, path, metadata)
    return sum(tensor.nbytes for tensor in tensors.values())


def _tensors(file: Any) -> Iterator[tuple[str, torch.Tensor]]:
    for name in file.keys():  # noqa: SIM118 - not a mapping
        yield name, file.get_tensor(name)
