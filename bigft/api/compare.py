"""Runs side by side, as their directories tell: what `bigft compare` shows. Loads no model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from bigft.config.errors import BadInput, Problem, collect
from bigft.config.metric_names import is_greater_better
from bigft.config.yaml_text import parse
from bigft.runtime.events import Event, read_metrics
from bigft.runtime.run_directory import RunDirectory

PREFIXES = ("eval_", "test_")  # of what was measured on the validation and on the test set
SAMPLES = tuple(f"{prefix}samples" for prefix in PREFIXES)  # how many each set has
NO_SCORES = ("_runtime", "_samples", "_samples_per_second", "_support")  # the ends of their names
NO_DIFFERENCE = ("train.output_dir",)  # of two runs it always differs
# Two runs that differ in these only, and in model.from_scratch, say what transfer brought.
NO_MATTER = (*NO_DIFFERENCE, "train.run_name", "train.seed", "train.resume_from_checkpoint")
FROM_SCRATCH = "model.from_scratch"

Values = dict[str, Any]  # by the path of each run that has one


@dataclass(frozen=True, slots=True)
class Seen:
    """One run.

    config: by dotted key; {} where none is written yet.  measured_at: the step of the scores.
    scores: eval_* and test_*; NaN is null in the files.  samples: how many each set has.
    training: loss, speed, time and memory; what is not known is left out.
    """

    path: str
    status: str
    why: str
    step: int
    total_steps: int | None
    measured_at: int | None
    config: Mapping[str, Any]
    scores: Mapping[str, float]
    samples: Mapping[str, int]
    training: Mapping[str, float]


def compare(directories: Sequence[RunDirectory]) -> dict[str, Any]:
    """The runs side by side; in each mapping by path, a run that has no such value is left out.

    runs: path, status, why, step, total_steps and measured_at of each, in the order given.
    config: of each dotted key that differs, its values.
    scores: of each score its values, the paths of the best, and how far it is from the first run's.
    training: train_loss, last_loss, tokens_per_second, seconds and peak_memory_mib.
    transfer: where some of the runs began from scratch and others did not: of each score the means
    of both, and their difference; else None.  notes: what makes a comparison doubtful.
    Raises BadInput for what is no run directory, and for runs of different tasks.
    """
    problems: list[Problem] = []
    runs: list[Seen] = []
    for directory in directories:
        with collect(problems):
            runs.append(_seen(directory))
    problems += _given_twice(directories)
    if not problems:
        problems += _of_other_tasks(runs)
    if problems:
        raise BadInput(problems)
    config = _differences(runs)
    return {
        "runs": [
            {
                "path": run.path,
                "status": run.status,
                "why": run.why,
                "step": run.step,
                "total_steps": run.total_steps,
                "measured_at": run.measured_at,
            }
            for run in runs
        ],
        "config": config,
        "scores": {name: _score(name, runs) for name in _names(run.scores for run in runs)},
        "training": {
            name: _values(name, {run.path: run.training for run in runs})
            for name in _names(run.training for run in runs)
        },
        "transfer": _transfer(runs, config),
        "notes": list(_notes(runs)),
    }


# -- one run --------------------------------------------------------------------------------------


def _seen(directory: RunDirectory) -> Seen:
    about, events = directory.observe(), read_metrics(directory.metrics_file)
    newest = {event["event"]: event for event in events}
    results = _so_far(events)
    if about["status"] == "finished":
        told = _results(directory)
        # Sorted there; an evaluation's event has its most telling scores first.
        results = {name: told[name] for name in (*results, *told) if name in told}
    return Seen(
        path=str(directory.path),
        status=about["status"],
        why=about.get("why", ""),
        step=directory.last_step(),
        total_steps=newest.get("start", {}).get("total_steps"),
        measured_at=results.get("model_step"),
        config=_config(directory),
        scores={
            name: math.nan if value is None else value
            for name, value in results.items()
            if name.startswith(PREFIXES) and not name.endswith(NO_SCORES)
        },
        samples={name: results[name] for name in SAMPLES if name in results},
        training=dict(_training(results, events)),
    )


def _results(directory: RunDirectory) -> dict[str, Any]:
    try:
        return directory.read_results()
    except ValueError as error:
        raise BadInput(Problem(str(directory.results_file), f"not valid JSON ({error})")) from error


def _so_far(events: Sequence[Event]) -> dict[str, Any]:
    """The newest evaluation of each set, of a run that has not finished."""
    found: dict[str, Any] = {}
    for event in (event for event in events if event["event"] == "eval"):
        scores = {name: value for name, value in event.items() if name.startswith(PREFIXES)}
        found |= {**scores, "model_step": event["step"]}
    return found


def _training(results: Mapping[str, Any], events: Sequence[Event]) -> Iterator[tuple[str, float]]:
    logs = [event for event in events if event["event"] == "log" and event["num_targets"]]
    if (loss := results.get("train_loss")) is not None:
        yield "train_loss", loss
    elif logs:
        targets = sum(log["num_targets"] for log in logs)
        yield "train_loss", sum(log["loss"] * log["num_targets"] for log in logs) / targets
    if logs:
        yield "last_loss", logs[-1]["loss"]
    if (speed := results.get("train_tokens_per_second")) is not None:
        yield "tokens_per_second", speed
    elif logs:
        seconds = sum(log["num_tokens"] / log["tokens_per_second"] for log in logs)
        yield "tokens_per_second", sum(log["num_tokens"] for log in logs) / seconds
    if any(event["event"] == "start" for event in events):
        yield "seconds", _seconds(events)
    if (peak := results.get("train_peak_memory_mib")) is not None:
        yield "peak_memory_mib", peak


def _seconds(events: Sequence[Event]) -> float:
    """From each start of the run to the last event before the next one: evaluations and saves are
    in it, what lies between two starts is not."""
    total, began = 0.0, None
    for event in events:
        if event["event"] == "start":
            began = event["time"]
        elif began is not None:
            total, began = total + event["time"] - began, event["time"]
    return total


def _config(directory: RunDirectory) -> dict[str, Any]:
    file = directory.config_file
    if not file.exists():  # it ended before it trained
        return {}
    problems: list[Problem] = []
    tree, _ = parse(file.read_text(encoding="utf-8"), lambda line: f"{file}:{line}", problems)
    if problems:
        raise BadInput(problems)
    return dict(_dotted(tree, ""))


def _dotted(tree: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict) and tree:
        for name, inner in tree.items():
            yield from _dotted(inner, f"{key}.{name}" if key else name)
    else:
        yield key, tree


# -- runs beside each other -----------------------------------------------------------------------


def _given_twice(directories: Sequence[RunDirectory]) -> Iterator[Problem]:
    places = [directory.path.resolve() for directory in directories]
    for number, directory in enumerate(directories):
        if places[number] in places[:number]:
            yield Problem(str(directory.path), "given twice", "give each run once")


def _of_other_tasks(runs: Sequence[Seen]) -> Iterator[Problem]:
    with_task = [run for run in runs if "task.name" in run.config]
    for run in with_task[1:]:
        first = with_task[0]
        task, other = run.config["task.name"], first.config["task.name"]
        if task != other:
            what = f"a run of {task}, but {first.path} is one of {other}"
            yield Problem(run.path, what, "compare runs of one task")


def _names(mappings: Any) -> list[str]:
    """All names, in the order in which they come."""
    return list(dict.fromkeys(name for mapping in mappings for name in mapping))


def _values(name: str, mappings: Mapping[str, Mapping[str, Any]]) -> Values:
    return {path: mapping[name] for path, mapping in mappings.items() if name in mapping}


def _differences(runs: Sequence[Seen]) -> dict[str, Values]:
    configs = {run.path: run.config for run in runs if run.config}
    found = {}
    for key in _names(configs.values()):
        values = _values(key, configs)
        first, *others = values.values()
        differ = len(values) < len(configs) or any(other != first for other in others)
        if differ and key not in NO_DIFFERENCE:
            found[key] = values
    return found


def _score(name: str, runs: Sequence[Seen]) -> dict[str, Any]:
    values = _values(name, {run.path: run.scores for run in runs})
    first = values.get(runs[0].path, math.nan)
    return {
        "values": values,
        "best": _best(values, _greater(name, runs)),
        "difference": {
            path: value - first
            for path, value in values.items()
            if path != runs[0].path and not math.isnan(value - first)
        },
    }


def _greater(name: str, runs: Sequence[Seen]) -> bool:
    """As a config says of the metric that judges its run, else by the metric's name."""
    metric = _metric(name)
    for run in runs:
        judges = run.config.get("train.metric_for_best_model") or "loss"
        told = run.config.get("train.greater_is_better")
        if told is not None and judges.removeprefix("eval_") == metric:
            return bool(told)
    return is_greater_better(metric)


def _metric(name: str) -> str:
    return next(name.removeprefix(prefix) for prefix in PREFIXES if name.startswith(prefix))


def _best(values: Values, greater: bool) -> list[str]:
    """The paths of the best; [] where there is nothing to choose among."""
    numbers = {path: value for path, value in values.items() if not math.isnan(value)}
    if len(set(numbers.values())) < 2:
        return []
    best = max(numbers.values()) if greater else min(numbers.values())
    return [path for path, value in numbers.items() if value == best]


def _transfer(runs: Sequence[Seen], config: Mapping[str, Values]) -> dict[str, Any] | None:
    by_start = {
        start: [run for run in runs if run.config.get(FROM_SCRATCH) is start and run.scores]
        for start in (True, False)
    }
    if not all(by_start.values()):
        return None
    scratch, pretrained = by_start[True], by_start[False]
    scores = {}
    for name in scratch[0].scores:
        if all(name in run.scores for run in (*scratch, *pretrained)):
            means = [fmean(run.scores[name] for run in side) for side in (scratch, pretrained)]
            scores[name] = {
                "from_scratch": means[0],
                "pretrained": means[1],
                "difference": means[1] - means[0],
            }
    return {
        "from_scratch": [run.path for run in scratch],
        "pretrained": [run.path for run in pretrained],
        "scores": scores,
        "differs_too": [key for key in config if key not in (*NO_MATTER, FROM_SCRATCH)],
    }


def _notes(runs: Sequence[Seen]) -> Iterator[str]:
    for run in runs:
        if not run.config:
            yield f"{run.path} has no config.yaml: it ended before it trained, or has not begun"
    for name in _names(run.samples for run in runs):
        counts = _values(name, {run.path: run.samples for run in runs})
        if len(set(counts.values())) > 1:
            listed = ", ".join(f"{count:,} ({path})" for path, count in counts.items())
            kind = "validation" if name.startswith("eval") else "test"
            yield f"the scores are of {kind} sets of different sizes: {listed}"
