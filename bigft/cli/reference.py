"""docs/commands.md, from the verbs and their parsers: `python -m bigft.cli.reference`."""

from __future__ import annotations

from argparse import SUPPRESS, Action, ArgumentParser, _SubParsersAction
from collections.abc import Iterator

from bigft.cli import VERBS, parser_of
from bigft.config.exit_codes import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    EXIT_HUNG,
    EXIT_INTERRUPTED,
    EXIT_NO_READER,
    EXIT_RESUMABLE,
)

EXITS = {
    "0": "done",
    str(EXIT_FAILED): "the run failed, with its traceback on stderr; a checkpoint is damaged",
    str(EXIT_BAD_INPUT): "refused: lines of `where: what; how to fix it` on stderr",
    str(EXIT_HUNG): "a rank hung for `parallel.ddp_timeout` seconds: the log names it, with stacks",
    str(EXIT_RESUMABLE): "stopped by SIGTERM, SIGUSR1, SIGUSR2 or `train.max_time` after saving a "
    "checkpoint: resume it",
    str(EXIT_INTERRUPTED): "Ctrl-C; nothing is saved",
    str(EXIT_NO_READER): "nobody reads the output any more (a closed pipe)",
    "128+n": "with `--nproc`: a rank was killed by signal n",
}
LAUNCHERS = """\
## Launchers
| command | starts |
|---|---|
| `bigft train CONFIG` | its own ranks: one per GPU, one on a CPU, or `--nproc N`; the data is \
prepared before they start |
| `torchrun --nproc-per-node N launch/train.py CONFIG` | one rank per process |
| `deepspeed launch/train.py CONFIG` | the same; `--hostfile` over ssh |
| `sbatch slurm/finetune.sh CONFIG` | one rank per task, requeued and continued by itself \
([slurm](slurm.md)) |

Under a launcher the first rank to hold the cache's lock prepares the data. A shell of \
`srun --pty` is no launcher.
"""


def commands() -> str:
    """The whole page, as Markdown."""
    lines = ["# Commands", "", "Written by `python -m bigft.cli.reference`.", ""]
    lines += ["| verb | what |", "|---|---|"]
    lines += [f"| [`bigft {verb}`](#bigft-{verb}) | {what} |" for verb, what in VERBS.items()]
    lines += ["", LAUNCHERS, "## Exit codes", "| code | means |", "|---|---|"]
    lines += [f"| {code} | {means} |" for code, means in EXITS.items()]
    lines += [
        "",
        "Launchers change codes (a worker's 75 is torchrun's 1). For scripts: "
        "`bigft status RUN --exit-code`.",
    ]
    for verb in VERBS:
        lines += ["", *_section(parser_of(verb))]
    return "\n".join(lines) + "\n"


def _section(parser: ArgumentParser) -> Iterator[str]:
    yield f"## {parser.prog}"
    what = parser.description or ""
    yield f"{what[:1].upper()}{what[1:]}."
    yield ""
    rows: list[tuple[str, str]] = []
    others: list[str] = []
    for group in parser._action_groups:
        shown = [each for each in group._group_actions if each.help != SUPPRESS]
        if group.description:  # many that need no explanation, as those of sbatch
            listed = ", ".join(f"`{action.option_strings[0]}`" for action in shown)
            others.append(f"{group.title}: {listed}; {group.description}.")
        else:
            rows += [row for action in shown if action.dest != "help" for row in _rows(action)]
    yield from ("| argument | what |", "|---|---|")
    for cells in rows:
        spelled, meaning = (cell.replace("|", "\\|") for cell in cells)
        yield f"| `{spelled}` | {meaning} |"
    for line in others:
        yield from ("", f"{line[0].upper()}{line[1:]}")


def _rows(action: Action) -> Iterator[tuple[str, str]]:
    if isinstance(action, _SubParsersAction):
        yield from ((choice.dest, choice.help or "") for choice in action._choices_actions)
    else:
        yield _spelled(action), action.help or ""


def _spelled(action: Action) -> str:
    value = action.metavar or "|".join(map(str, action.choices or ())) or action.dest.upper()
    if not action.option_strings:
        forms = {"?": f"[{value}]", "*": f"[{value} ...]", "+": f"{value} [{value} ...]"}
        return forms.get(str(action.nargs), str(value))
    return ", ".join(action.option_strings) + ("" if action.nargs == 0 else f" {value}")


if __name__ == "__main__":
    print(commands(), end="")
