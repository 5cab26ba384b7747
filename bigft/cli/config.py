"""`bigft config CONFIG [section.key=value ...]`: the resolved config, or the schema of all keys."""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace

from bigft.cli.arguments import add_config_arguments, read_config
from bigft.config.load import json_schema, resolved_yaml


def add_arguments(parser: ArgumentParser) -> None:
    add_config_arguments(parser)
    parser.add_argument(
        "--schema", action="store_true", help="print the JSON schema of all keys instead"
    )


def run(args: Namespace) -> int:
    if args.schema:
        print(json.dumps(json_schema(), indent=2, ensure_ascii=False))
    else:
        print(resolved_yaml(read_config(args).config), end="")
    return 0
