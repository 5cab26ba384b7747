"""`bigft predict RUN --text ...`: a run's answers, one JSON object a line."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Iterator
from pathlib import Path

from bigft.config.errors import BadInput, Problem
from bigft.runtime.run_directory import RunDirectory


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("run", type=Path, help="a run directory (train.output_dir)")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--text", action="append", help="a text; may be given several times")
    source.add_argument("--file", type=Path, help="one text a line, or JSONL with `text`")
    parser.add_argument("--output", type=Path, help="a file instead of stdout")
    parser.add_argument("--batch-size", type=int, metavar="N", help="rows of a forward")


def run(args: Namespace) -> int:
    from bigft.training.trained import Trained

    texts = _texts(args)
    trained = Trained.load(RunDirectory(args.run))
    batch_size = args.batch_size or trained.config.train.per_device_eval_batch_size
    records = (trained.task.text_record(text, index) for index, text in enumerate(texts))
    output = args.output.open("w", encoding="utf-8") if args.output else sys.stdout
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
        return _lines(sys.stdin, "stdin")
    try:
        return _lines(args.file.open(encoding="utf-8"), str(args.file))
    except OSError as error:
        raise BadInput(
            Problem("--file", f"{args.file}: {error.strerror}", "give a readable file")
        ) from error


def _lines(stream: Iterable[str], name: str) -> Iterator[str]:
    """The texts: a line that begins with { is an object with `text`; empty lines are passed over.

    Raises BadInput, naming the line, for an object without it.
    """
    for number, line in enumerate(stream, 1):
        text = line.strip()
        if text.startswith("{"):
            try:
                text = json.loads(text)["text"]
            except (ValueError, KeyError) as error:
                raise BadInput(
                    Problem(f"{name}:{number}", "no JSON object with a string `text`")
                ) from error
        if text:
            yield text
