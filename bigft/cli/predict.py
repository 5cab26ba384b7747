"""`bigft predict RUN --text ...`: a run's answers, one JSON object a line."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from bigft.cli.arguments import count
from bigft.config.errors import BadInput, Problem
from bigft.runtime.run_directory import RunDirectory


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="a run directory (train.output_dir)")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--text", action="append", help="a text; may be given several times")
    source.add_argument("--file", type=Path, help="one text a line, or JSONL with `text`")
    parser.add_argument("--output", type=Path, help="a file instead of stdout")
    parser.add_argument("--batch-size", type=count, metavar="N", help="rows of a forward")


def run(args: Namespace) -> int:
    from bigft.training.trained import Trained

    texts = _texts(args)
    trained = Trained.load(RunDirectory(args.run))
    batch_size = args.batch_size or trained.config.train.per_device_eval_batch_size
    records = (trained.task.text_record(text, index) for index, text in enumerate(texts))
    output = _opened("--output", args.output, "w") if args.output else sys.stdout
    try:
        for prediction in trained.predict(records, batch_size):
            print(json.dumps(prediction, ensure_ascii=False), file=output, flush=True)
    finally:
        if args.output:
            output.close()
    return 0


def _texts(args: Namespace) -> Iterator[str]:
    if args.text:
        return iter(args.text)
    if args.file is None:
        return _lines(sys.stdin.buffer, "stdin")
    return _lines(_opened("--file", args.file, "rb"), str(args.file))


def _opened(option: str, path: Path, mode: str) -> IO[Any]:
    try:
        return path.open(mode, encoding=None if "b" in mode else "utf-8")
    except OSError as error:
        problem = Problem(f"{option} {path}", str(error.strerror), "name another file")
        raise BadInput(problem) from error


def _lines(stream: Iterable[bytes], name: str) -> Iterator[str]:
    """The texts: a line that begins with { is an object with `text`; empty lines are passed over.

    Raises BadInput, naming the line, for an object without it and for what is not UTF-8.
    """
    for number, raw in enumerate(stream, 1):
        where = f"{name}:{number}"
        try:
            text = raw.decode("utf-8-sig").strip()
        except UnicodeDecodeError as error:
            raise BadInput(Problem(where, "not UTF-8", "save it as UTF-8")) from error
        if text.startswith("{"):
            text = _text_of(text, where)
        if text:
            yield text


def _text_of(line: str, where: str) -> str:
    try:
        text = json.loads(line).get("text")
    except ValueError as error:
        raise BadInput(Problem(where, f"no JSON ({error})", "write one object a line")) from error
    if not isinstance(text, str):
        raise BadInput(Problem(where, "no string `text` in the object", 'write {"text": "..."}'))
    return text
