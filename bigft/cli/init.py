"""`bigft init DATA ...`: a first config for a file or a folder of data, as `bigft check` takes it.

Only the first records are read, and no torch is loaded.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigft.config.draft import COMMAND_LINE, Draft
from bigft.config.errors import BadInput, Problem
from bigft.config.load import load_config
from bigft.config.yaml_text import dump

if TYPE_CHECKING:
    from bigft.cli.guess import Choice
    from bigft.data.discover import Found

# What is not there, and what it would be.
ABSENT = {
    "validation": "a file to evaluate on during training",
    "test": "a file to evaluate on at the end",
}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "data",
        nargs="+",
        metavar="DATA",
        help="a file, a folder, or several files; then section.key=value to put into the config",
    )
    parser.add_argument(
        "--task", metavar="NAME", help="the task, where the data could be for several"
    )
    parser.add_argument(
        "--model", metavar="NAME_OR_PATH", help="a directory or a hub id (a small one of the task)"
    )
    parser.add_argument(
        "-o", "--output", metavar="FILE", help="write the config there (standard output)"
    )
    parser.add_argument("--force", action="store_true", help="write over an existing FILE")


def run(args: Namespace) -> int:
    from bigft.cli.guess import choose
    from bigft.data.discover import find_data
    from bigft.tasks import TASKS

    if args.output and Path(args.output).exists() and not args.force:
        raise BadInput(Problem(args.output, "exists already", "choose another file, or --force"))
    paths = [word for word in args.data if "=" not in word or Path(word).exists()]
    given = _given([word for word in args.data if word not in paths])
    if args.model:
        given["model.model_name_or_path"] = args.model
    task = given.pop("task.name", args.task)
    if task and task not in TASKS:
        needed = ("model.model_name_or_path", "data.train_file", "train.output_dir")
        load_config(None, [f"task={task}", *(f"{key}=x" for key in needed)])  # says what it is
    if not paths:
        raise BadInput(Problem("bigft init", "no data is named", "name a file or a folder"))
    found = find_data(paths)
    tasks = [task] if task else [name for name in TASKS if TASKS[name].start.by_data]
    choice = choose(found, tasks, given)
    text = config_text(found, choice, given, _name(paths[0]), args.output)
    if args.output is None:
        print(text, end="")
        return 0
    try:
        with open(args.output, "w" if args.force else "x", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise BadInput(Problem(args.output, f"cannot be written ({error.strerror})")) from error
    print(f"wrote {args.output} ({choice.task}); next: bigft check {args.output}", file=sys.stderr)
    return 0


def _given(words: Sequence[str]) -> dict[str, Any]:
    """The overrides by dotted key. Raises BadInput."""
    draft = Draft(COMMAND_LINE)
    for word in words:
        draft.override(word)
    if draft.problems:
        raise BadInput(draft.problems)
    given: dict[str, Any] = {}
    for section, values in draft.values.items():
        if isinstance(values, dict):
            given |= {f"{section}.{key}": value for key, value in values.items()}
        else:
            given[section] = values  # no section: it will be refused
    return given


def _name(path: str) -> str:
    """Of the run: the folder's, or the file's up to its first dot unless that tells a split."""
    from bigft.data.discover import split_of

    place = Path(path).absolute()
    if place.is_dir():
        return place.name
    name = place.name.partition(".")[0]
    return (place.parent.name if split_of(name) else "") or name


def config_text(
    found: Found, choice: Choice, given: Mapping[str, Any], name: str, file: str | None
) -> str:
    """The config as YAML, with a comment where something is to be chosen."""
    from bigft.tasks import TASKS

    start, guess, shown = TASKS[choice.task].start, choice.guess, _in_a_line(file or "FILE")
    options = {key: value for key, value in {**guess.keys, **given}.items() if key[:5] == "task."}
    keys = {
        **({"task.name": choice.task} | options if options else {"task": choice.task}),
        "model.model_name_or_path": start.model,
        **{
            f"data.{split}_file": files[0] if len(files) == 1 else list(files)
            for split, files in found.files.items()
        },
        **guess.keys,
        **given,
    }
    keys.setdefault("train.output_dir", f"runs/{name}")
    told = next((key for key in guess.keys if key != "data.format"), "data.train_file")
    comments = {told: guess.comment, "model.model_name_or_path": start.of_model}
    comments = {key: text for key, text in comments.items() if key not in given}
    lines = [f"# `bigft check {shown}` shows what it does, `bigft train {shown}` does it."]
    for section in dict.fromkeys(key.partition(".")[0] for key in keys):
        inner = {key: value for key, value in keys.items() if key.partition(".")[0] == section}
        lines += [] if section in inner else [f"{section}:"]
        for key, value in inner.items():
            lines += _lines(key, value, comments.get(key, ""))
        if section == "data":
            absent = [split for split in ABSENT if f"data.{split}_file" not in keys]
            lines += [f"  # {split}_file: {ABSENT[split]}" for split in absent]
            if found.unused:
                lines.append(f"  # not used: {_in_a_line(', '.join(found.unused))}")
    return "\n".join(lines) + "\n"


def _lines(key: str, value: Any, comment: str) -> list[str]:
    """A key of a section, or one that is a section, and its value; above it the comment."""
    section, _, name = key.partition(".")
    lines = [f"# {_in_a_line(comment)}"] if comment else []
    lines += dump({name or section: value}).splitlines()
    return [f"{'  ' * bool(name)}{line}" for line in lines]


def _in_a_line(comment: str) -> str:
    """Names of columns and files may hold what YAML does not allow in a comment."""
    return "".join(char if char.isprintable() else "?" for char in comment)
