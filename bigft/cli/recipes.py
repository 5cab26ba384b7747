"""`bigft recipes [NAME]`: the shipped configs, a line each, or one of them to start from."""

from __future__ import annotations

import re
from argparse import ArgumentParser, Namespace
from difflib import get_close_matches
from pathlib import Path

import bigft
from bigft.config.errors import BadInput, Problem
from bigft.config.load import load_config

ROOT = Path(bigft.__file__).parents[1]
PLACES = (ROOT / "bigft/recipes", ROOT / "configs")  # the first is a link, where there are links
PATHS = re.compile(r"(?<=: )(examples|models)/[\w./-]+")


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "name", nargs="?", metavar="NAME", help="the recipe to print (all, in a list)"
    )


def run(args: Namespace) -> int:
    place = next(place for place in PLACES if place.is_dir())
    recipes = {path.stem: path for path in sorted(place.glob("*.yaml"))}
    if args.name is None:
        print("\n".join(_table(recipes)))
        return 0
    name = args.name.removesuffix(".yaml")
    if name not in recipes:
        near = get_close_matches(name, recipes, cutoff=0.4)
        fix = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(recipes)}"
        raise BadInput(Problem("bigft recipes", f"no recipe {args.name!r}", fix))
    print(_from_anywhere(recipes[name].read_text(encoding="utf-8")), end="")
    return 0


def _from_anywhere(text: str) -> str:
    """The recipe, its paths into the repository, where this is one, made absolute."""

    def whole(path: re.Match[str]) -> str:
        place = ROOT / path[0]
        return str(place) if place.exists() else path[0]

    return PATHS.sub(whole, text)


def _table(recipes: dict[str, Path]) -> list[str]:
    rows = [
        (name, load_config(str(path)).config.task.name, description(path))
        for name, path in recipes.items()
    ]
    names, tasks = (max(map(len, column)) for column in list(zip(*rows, strict=True))[:2])
    return [f"{name:{names}}  {task:{tasks}}  {what}" for name, task, what in rows]


def description(path: Path) -> str:
    """The first sentence of the file's first line, a comment."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.removeprefix("#").partition(". ")[0].strip().rstrip(".:")
