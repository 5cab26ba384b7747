"""`bigft config CONFIG [section.key=value ...]`: the resolved config, values of it, or the
schema of all keys."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from typing import Any

from bigft.cli.arguments import add_config_arguments, read_config
from bigft.config.errors import BadInput, Problem
from bigft.config.keys import mend_unknown
from bigft.config.load import json_schema, resolved_yaml
from bigft.config.sections import RunConfig


def add_arguments(parser: ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument(
        "--schema", action="store_true", help="print the JSON schema of all keys instead"
    )
    parser.add_argument(
        "--get",
        nargs="+",
        metavar="section.key",
        help="print these values alone, each on its line: text as it is, else as JSON",
    )


def run(args: Namespace) -> int:
    if args.schema:
        print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
    elif args.get is not None:
        config = read_config(args, quiet=True).config
        print(*(_value(config, key) for key in args.get), sep="\n")
    else:
        print(resolved_yaml(read_config(args).config), end="")
    return 0


def _value(config: RunConfig, key: str) -> str:
    value: Any = config.model_dump(mode="json")
    path = key.split(".")
    for name in path:
        if not isinstance(value, dict) or name not in value:
            raise BadInput(Problem("--get", f"no key {key!r}", mend_unknown(tuple(path))))
        value = value[name]
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
