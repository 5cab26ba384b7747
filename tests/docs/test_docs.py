"""The documents say what is there: commands parse, paths and links exist, configs load."""

from __future__ import annotations

import re
import shlex
from argparse import ArgumentParser
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from bigft.cli import VERBS
from bigft.cli.reference import EXITS
from bigft.cli.reference import commands as commands_page
from bigft.config import exit_codes
from bigft.config.exit_codes import EXIT_RUNNING
from bigft.config.load import load_config
from bigft.config.not_yet import NOT_YET
from bigft.data.formats import FORMATS

REPOSITORY = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "examples/**/*.md")
    for path in REPOSITORY.glob(pattern)
)
CONFIGURATION = REPOSITORY / "docs/configuration.md"
README, PACKAGE = REPOSITORY / "README.md", REPOSITORY / "bigft"
MAX_README_LINES, MAX_README_COLUMNS = 150, 100

# What make and runs leave behind: no checkout has it.
GENERATED = re.compile(
    r"(runs|models|logs|model|ds|\.venv|\$\w+|~)/|.*checkpoint-<step>|best$"
    r"|(config|adapter_config)\.yaml$|(run|trainer|config|all_results)\.json$|metrics\.jsonl$"
)
PLANNED = {"bigft/plan/"}  # a package of docs/architecture.md that is still empty
# Text between backticks that has a slash and is no path.
NO_PATH = re.compile(r".*[ <>*{}()=,\"']|\w+://|/dev/")
ELSEWHERE = {"run_ner.py"}  # of transformers
NAMES = ELSEWHERE | {
    path.name
    for top in REPOSITORY.iterdir()
    if not top.name.startswith(".") and top.name not in ("models", "runs")
    for path in [top, *top.rglob("*")]
}
# The README shows how this is refused.
REFUSED = [["optim.lerning_rate=1e-4", "train.bf16=yes"]]
FILE_NAME = re.compile(r"[\w.-]+\.(?:py|md|yaml|json|jsonl|toml|txt|cpp|h|conll)")


def ids(document: Path) -> str:
    return str(document.relative_to(REPOSITORY))


def code_spans(document: Path) -> Iterator[str]:
    """Inline code outside of fenced blocks."""
    text = re.sub(r"^```.*?^```", "", document.read_text(encoding="utf-8"), flags=re.M | re.S)
    yield from (" ".join(span.split()) for span in re.findall(r"`([^`]+)`", text))


def commands(document: Path) -> Iterator[str]:
    """Whole commands: lines of indented and fenced blocks, and inline code."""
    for line in document.read_text(encoding="utf-8").splitlines():
        if re.match(r"( {4}|\$ )\S", line):
            yield line.strip().removeprefix("$ ").partition("  #")[0].strip()
    yield from code_spans(document)


def arguments_of(command: str) -> list[str] | None:
    """What follows `bigft`, also behind a launcher; None for other commands and bare names."""
    if found := re.fullmatch(r"(?:torchrun|deepspeed)\b.*launch/train\.py(.*)", command):
        return ["train", *shlex.split(found[1])]
    found = re.fullmatch(r"bigft ([a-z]+\b.*)", command)
    return shlex.split(found[1].replace("[", "").replace("]", "")) if found else None


COMMANDS = [
    pytest.param(words, id=f"{ids(document)}: {command}")
    for document in DOCUMENTS
    for command in dict.fromkeys(commands(document))
    if (words := arguments_of(command)) is not None
]


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_parses_and_its_config_loads(words: list[str]) -> None:
    verb, *rest = words
    assert verb in VERBS
    if not rest:
        return  # the verb's name, not a command
    parser = ArgumentParser(exit_on_error=False, allow_abbrev=False)
    module = import_module(f"bigft.cli.{verb}")
    module.add_arguments(parser)
    placeholders = {"N": "2", "...": "section.key=value"}
    parse = getattr(module, "parse", ArgumentParser.parse_intermixed_args)
    args = parse(parser, [placeholders.get(word, word) for word in rest])
    config = getattr(args, "config", None) or ""
    if config.startswith("configs/"):
        overrides = [text for text in args.overrides if text != "section.key=value"]
        if overrides not in REFUSED:
            load_config(str(REPOSITORY / config), overrides)


def test_the_readme_shows_every_verb() -> None:
    shown = {words[0] for param in COMMANDS for words in param.values}
    assert set(VERBS) <= shown


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_every_path_exists(document: Path) -> None:
    assert [span for span in code_spans(document) if not is_there(span, document)] == []


def is_there(span: str, document: Path) -> bool:
    """False for a path or a file name that nothing in the repository has."""
    if NO_PATH.match(span) or GENERATED.match(span) or span in PLANNED:
        return True
    if "/" in span:
        return any((base / span).exists() for base in (REPOSITORY, document.parent))
    return not FILE_NAME.fullmatch(span) or span in NAMES


PACKAGES = sorted({path.parent for path in PACKAGE.rglob("*.py")} - {PACKAGE})


@pytest.mark.parametrize("package", PACKAGES, ids=ids)
def test_the_architecture_names_every_file(package: Path) -> None:
    """And in the row of its package no file that is gone."""
    text = (REPOSITORY / "docs/architecture.md").read_text(encoding="utf-8")
    row = re.search(rf"^\| `{ids(package)}/` \|.*$", text, flags=re.M)
    assert row, f"no row for {ids(package)}/"
    named = set(re.findall(r"`(\w+\.py)`", row[0]))
    there = {path.name for path in package.glob("*.py")} - {"__init__.py"}
    operators = {name for name in there if name.startswith("_")}  # one for each, as it says
    assert named == there - operators


@pytest.mark.parametrize("document", DOCUMENTS, ids=ids)
def test_every_relative_link_resolves(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", document.read_text(encoding="utf-8"))
    relative = [target for target in targets if "://" not in target]
    assert [target for target in relative if not (document.parent / target).exists()] == []


def test_every_make_target_exists() -> None:
    makefile = (REPOSITORY / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, flags=re.M))
    for document in DOCUMENTS:
        named = {
            command.split()[1] for command in commands(document) if command.startswith("make ")
        }
        assert named <= targets, ids(document)


@pytest.mark.parametrize("config", sorted(REPOSITORY.glob("configs/*.yaml")), ids=ids)
def test_every_shipped_config_loads(config: Path) -> None:
    load_config(str(config))


def test_the_quickstart_config_is_explained_as_it_is() -> None:
    text = CONFIGURATION.read_text(encoding="utf-8")
    shown = next(
        block
        for block in re.findall(r"^```yaml\n(.*?)^```", text, flags=re.M | re.S)
        if "runs/quickstart" in block
    )
    overrides = _without_comments(shown)
    config = (REPOSITORY / "configs/quickstart.yaml").read_text(encoding="utf-8")
    assert overrides == _without_comments(config)


def _without_comments(yaml: str) -> list[str]:
    lines = [line.partition("#")[0].rstrip() for line in yaml.splitlines()]
    return [line for line in lines if line]


def test_every_key_that_is_not_done_yet_is_listed() -> None:
    section = (
        CONFIGURATION.read_text(encoding="utf-8")
        .partition("## Not there yet")[2]
        .partition("\n## ")[0]
    )
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    listed = {key for row in rows for key in re.findall(r"`([^`]+)`", row)}
    assert listed == {item.key for item in NOT_YET}


def test_the_table_of_formats_is_that_of_the_readers() -> None:
    text = (REPOSITORY / "docs/data.md").read_text(encoding="utf-8")
    section = text.partition("## Formats")[2].partition("**Columns.**")[0]
    assert re.findall(r"^\| `(\w+)`", section, flags=re.M) == list(FORMATS)


def test_the_readme_is_short() -> None:
    lines = README.read_text(encoding="utf-8").splitlines()
    assert len(lines) <= MAX_README_LINES
    assert [line for line in lines if len(line) > MAX_README_COLUMNS] == []


def test_the_page_of_commands_is_what_the_parsers_say() -> None:
    """`python -m bigft.cli.reference > docs/commands.md` writes it."""
    assert (REPOSITORY / "docs/commands.md").read_text(encoding="utf-8") == commands_page()


def test_every_exit_code_is_explained() -> None:
    codes = {value for name, value in vars(exit_codes).items() if name.startswith("EXIT_")}
    of_status = {EXIT_RUNNING}  # of `bigft status --exit-code` alone, whose help has it
    assert {int(code) for code in EXITS if code.isdigit()} == (codes - of_status) | {0}
