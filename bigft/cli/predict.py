"""`bigft predict RUN --text ...`: a run's answers, one JSON object a line; `--chat`: a talk."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from bigft.api.answers import SETTABLE, Line, answered, not_text
from bigft.api.given import unsettable
from bigft.cli.arguments import count
from bigft.config.errors import BadInput, Problem, collect
from bigft.runtime.imports import importing
from bigft.runtime.run_directory import RunDirectory


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="a run directory (train.output_dir)")
    parser.add_argument(
        "overrides",
        nargs="*",
        metavar=f"{SETTABLE}key=value",
        help="put over the run's config (max_new_tokens, temperature, ...)",
    )
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--text", action="append", help="a text; may be given several times")
    source.add_argument(
        "--file",
        type=Path,
        help="one text a line, or JSONL with `text` (causal-lm: or `messages`, `prompt`, "
        "`instruction`; question-answering: `question` and `context`); may be compressed, as .gz, "
        ".zst, .bz2 or .xz",
    )
    source.add_argument(
        "--question", action="append", help="a question; may be given several times"
    )
    source.add_argument("--chat", action="store_true", help="talk with a causal-lm")
    parser.add_argument(
        "--context",
        action="append",
        help="the text that answers --question: one for each, or one for all",
    )
    parser.add_argument("--output", type=Path, help="a file instead of stdout")
    parser.add_argument("--batch-size", type=count, metavar="N", help="rows of a forward")


def run(args: Namespace) -> int:
    _check(args)
    problems: list[Problem] = []
    lines = None if args.chat else _lines_of(args, problems)
    with importing():
        from bigft.training.trained import Trained

    trained = Trained.load(RunDirectory(args.run), args.overrides)
    if lines is None:
        from bigft.cli.chat import chat

        return chat(trained)
    output = _output(args.output) if args.output else sys.stdout
    try:
        for prediction in answered(trained, lines, args.batch_size, problems):
            print(json.dumps(prediction, ensure_ascii=False), file=output, flush=True)
    finally:
        if args.output:
            output.close()
    if problems:  # after the answers to all the other lines
        from bigft.data.formats.base import capped

        raise BadInput(capped(problems, problems[0].where.rpartition(":")[0]))
    return 0


def _check(args: Namespace) -> None:
    """Raises BadInput for options that no run could heed."""
    problems = unsettable(args.overrides, SETTABLE, "predict")
    for option in ("text", "question", "context"):
        problems += not_text(getattr(args, option) or (), f"--{option}")
    asked, contexts = len(args.question or ()), len(args.context or ())
    if asked and contexts not in (1, asked):
        what = f"{asked} given, but --context {contexts} times"
        problems.append(Problem("--question", what, "give one for each, or one for all"))
    if contexts and not asked:
        problems.append(Problem("--context", "given without --question", "give both"))
    if args.chat and args.output:
        problems.append(Problem("--output", "given beside --chat", "leave it out"))
    if problems:
        raise BadInput(problems)


def _lines_of(args: Namespace, problems: list[Problem]) -> Iterator[Line]:
    if args.text:
        return (Line(text, "--text", number) for number, text in enumerate(args.text, 1))
    if args.question:
        contexts = args.context * len(args.question) if len(args.context) == 1 else args.context
        pairs = enumerate(zip(args.question, contexts, strict=True), 1)
        return (
            Line({"question": question, "context": context}, "--question", number)
            for number, (question, context) in pairs
        )
    if args.file is None:
        return _lines(sys.stdin.buffer, "stdin", problems)
    return _lines(_input(args.file, problems), str(args.file), problems)


def _input(path: Path, problems: list[Problem]) -> Iterable[bytes]:
    """The file's lines, decompressed, as far as it can be; a pipe's as they come.

    Raises BadInput for what is no data.
    """
    from bigft.data.formats.files import check_content, open_data

    with _opened("--file", path):
        if not path.is_file():
            return path.open("rb")
        check_content(str(path))

    def lines() -> Iterator[bytes]:
        with collect(problems), open_data(str(path)) as file:
            yield from file

    return lines()


def _output(path: Path) -> IO[str]:
    from bigft.data.formats.files import create_data

    with _opened("--output", path):
        return create_data(str(path))


@contextmanager
def _opened(option: str, path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        problem = Problem(f"{option} {path}", str(error.strerror), "name another file")
        raise BadInput(problem) from error


def _lines(stream: Iterable[bytes], name: str, problems: list[Problem]) -> Iterator[Line]:
    """A line that begins with { is an object; empty lines and texts are passed over. Of a line that
    cannot be read, the problem."""
    for number, raw in enumerate(stream, 1):
        with collect(problems):
            value = _value(raw, f"{name}:{number}")
            if value and value != {"text": ""}:
                yield Line(value, name, number)


def _value(raw: bytes, where: str) -> str | dict[str, Any]:
    """Raises BadInput for what is not UTF-8 or no JSON."""
    try:
        value: Any = raw.decode("utf-8-sig").strip()
    except UnicodeDecodeError as error:
        raise BadInput(Problem(where, "not UTF-8", "save it as UTF-8")) from error
    if value.startswith("{"):
        from bigft.data.formats.json_rows import NoJson, parse

        try:
            value = parse(value, "write one object a line")
        except NoJson as error:
            raise BadInput(error.at(where)) from error
    return value
