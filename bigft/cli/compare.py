"""`bigft compare RUN [RUN ...]`: configs, scores, losses, speed, memory and time side by side."""

from __future__ import annotations

import math
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import shorten
from typing import Any

from bigft.api.compare import compare
from bigft.config.yaml_text import one_line
from bigft.report.console import duration
from bigft.runtime.events import strict_json
from bigft.runtime.run_directory import RunDirectory

WIDEST = 32  # characters of a config's value
NOTHING = "-"
BEST = "*"
TRAINING: dict[str, tuple[str, Callable[[float], str]]] = {
    "train_loss": ("train_loss, mean", "{:.4f}".format),
    "last_loss": ("train_loss, last", "{:.4f}".format),
    "tokens_per_second": ("tokens/s", "{:,.0f}".format),
    "seconds": ("time", duration),
    "peak_memory_mib": ("peak memory, MiB", "{:,.0f}".format),
}

Line = tuple[str, Sequence[str]]  # its name, and a cell for each run


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="run directories (train.output_dir)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object, for scripts")


def run(args: Namespace) -> int:
    found = compare([RunDirectory(path) for path in args.runs])
    print(strict_json(found, indent=2) if args.json else as_text(found))
    return 0


def as_text(found: Mapping[str, Any]) -> str:
    paths = [run["path"] for run in found["runs"]]
    blocks: dict[str, list[Line]] = {
        "": list(_standing(found["runs"])),
        "config, where it differs": [
            (key, _cells(values, paths, _config_value)) for key, values in found["config"].items()
        ],
        "scores": [(name, _scores(score, paths)) for name, score in found["scores"].items()],
        "training": [
            (name, _cells(found["training"][key], paths, form))
            for key, (name, form) in TRAINING.items()
            if key in found["training"]
        ],
    }
    text = "\n".join(_table("", _short_names(paths), blocks))
    notes = [f"note: {note}" for note in found["notes"]]
    return "\n\n".join(filter(None, [text, _transfer(found["transfer"]), "\n".join(notes)]))


def _standing(runs: Sequence[Mapping[str, Any]]) -> Iterator[Line]:
    yield "status", [run["status"] for run in runs]
    if any(run["why"] for run in runs):
        yield "why", [shorten(run["why"], WIDEST, placeholder=" …") or NOTHING for run in runs]
    yield "step", [f"{run['step']:,}/{run['total_steps'] or '?'}" for run in runs]
    if any(run["measured_at"] is not None for run in runs):
        steps = [run["measured_at"] for run in runs]
        yield "scores of step", [NOTHING if step is None else f"{step:,}" for step in steps]


def _cells(
    values: Mapping[str, Any], paths: Sequence[str], form: Callable[[Any], str]
) -> list[str]:
    return [form(values[path]) if path in values else NOTHING for path in paths]


def _config_value(value: Any) -> str:
    return _short(one_line(value))


def _scores(score: Mapping[str, Any], paths: Sequence[str]) -> list[str]:
    """Each with its mark if it is the best, and how far it is from the first run's."""
    cells = []
    for path in paths:
        if path not in score["values"]:
            cells.append(NOTHING)
            continue
        cell = _number(score["values"][path]) + (BEST if path in score["best"] else " ")
        if path in score["difference"]:
            cell += f" ({_number(score['difference'][path], sign='+')})"
        cells.append(cell.rstrip())
    return cells


def _number(value: float, sign: str = "") -> str:
    return "nan" if math.isnan(value) else f"{value:{sign}.4f}"


def _transfer(transfer: Mapping[str, Any] | None) -> str:
    if transfer is None:
        return ""

    def mean(side: str) -> str:
        number = len(transfer[side])
        return side.replace("_", " ") + (f", mean of {number}" if number > 1 else "")

    heads = [mean("from_scratch"), mean("pretrained"), "difference"]
    lines = [
        (name, [_number(of["from_scratch"]), _number(of["pretrained"]),
                _number(of["difference"], sign="+")])
        for name, of in transfer["scores"].items()
    ]  # fmt: skip
    text = "\n".join(_table("what transfer brought", heads, {"": lines}))
    if differs := transfer["differs_too"]:
        text += f"\nnote: not transfer alone, they differ in {', '.join(differs)} too"
    return text


def _table(title: str, heads: Sequence[str], blocks: Mapping[str, Sequence[Line]]) -> Iterator[str]:
    """Blocks of lines under one row of heads. A block without lines is left out."""
    lines = [line for block in blocks.values() for line in block]
    first = max(len(title), *(len(name) + 2 for name, _ in lines))
    columns = zip(heads, *(cells for _, cells in lines), strict=True)
    widths = [max(map(len, cells)) for cells in columns]

    def row(name: str, cells: Sequence[str]) -> str:
        padded = (f"{cell:<{width}}" for cell, width in zip(cells, widths, strict=True))
        return f"{name:<{first}}  {'  '.join(padded)}".rstrip()

    yield row(title, heads)
    for name, block in blocks.items():
        if block and name:
            yield f"\n{name}"
        yield from (row(f"  {name}", cells) for name, cells in block)


def _short(text: str) -> str:
    """Of long text, a path or a list, both ends."""
    return text if len(text) <= WIDEST else f"{text[:8]} … {text[11 - WIDEST :]}"


def _short_names(paths: Sequence[str]) -> list[str]:
    """The ends of the paths, as short as they differ."""
    parts = [Path(path).parts for path in paths]
    for length in range(1, max(map(len, parts))):
        ends = [str(Path(*each[-length:])) for each in parts]
        if len(set(ends)) == len(ends):
            return ends
    return list(paths)
