"""`bigft <verb> ...`: finds the verb's module, parses, runs. A verb's module is imported only
when it is chosen, so that a refused config costs no second of loading torch. Nothing heavy is
imported here: Ctrl-C while Python loads must find `main` running."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from typing import TYPE_CHECKING

from bigft import __version__
from bigft.runtime import imports
from bigft.runtime.signals import interruptible

if TYPE_CHECKING:
    from argparse import ArgumentParser

    from bigft.config.errors import BadInput

REFUSAL = "BIGFT_REFUSAL"  # a file of the job script's, for the last line of its log

VERBS = {
    "init": "write a first config for a file or a folder of data",
    "recipes": "list the shipped configs, or print one to start from",
    "train": "fine-tune a model as a config describes it",
    "check": "check config, data and model without training",
    "config": "print the resolved config, or the JSON schema of all keys",
    "env": "print versions and hardware",
    "evaluate": "measure a run's model on a split",
    "predict": "write a run's predictions",
    "export": "write a run's model elsewhere, an adapter merged into its base",
    "status": "say how a run stands",
    "compare": "show runs side by side: configs, scores, losses, speed, memory, time",
    "checkpoint": "list or verify a run's checkpoints",
    "submit": "check a config, then submit it to Slurm",
    "node": "check that a job's nodes can train together",
    "job": "tell a job script how its run stands (slurm/finetune.sh asks)",
    "bench": "measure an operator beside its peers (in a checkout)",
}


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0, 2 for input that is refused, 130 for Ctrl-C, 141 where nobody reads the
    output any more (`| head`), or what the verb returns."""
    words = list(sys.argv[1:] if argv is None else argv)
    if argv is None:
        imports.owns_process = True
    try:
        with interruptible():
            code = _dispatch(words)
            sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 128 + signal.SIGINT  # EXIT_INTERRUPTED, whose module may not be imported yet
    except BrokenPipeError:
        from bigft.config.exit_codes import EXIT_NO_READER

        # What is left in the buffer goes nowhere, or Python would fail on it at its exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_NO_READER
    except Exception as error:
        from bigft.config.errors import BadInput
        from bigft.config.exit_codes import EXIT_BAD_INPUT

        if not isinstance(error, BadInput):
            raise
        print(error, file=sys.stderr)
        _leave_for_the_job(error)
        return EXIT_BAD_INPUT


def _dispatch(words: list[str]) -> int:
    from bigft.runtime.logs import quiet_libraries
    from bigft.runtime.remote_code import fetch_no_code

    quiet_libraries()
    fetch_no_code()
    if not words or words[0] in ("-h", "--help"):
        print(_help())
        return 0
    if words[0] == "--version":
        print(f"bigft {__version__}")
        return 0
    verb, *rest = words
    if verb not in VERBS:
        from difflib import get_close_matches

        from bigft.config.errors import BadInput, Problem

        nearest = get_close_matches(verb, VERBS, n=1)
        fix = f"did you mean {nearest[0]}?" if nearest else f"choose one of {', '.join(VERBS)}"
        raise BadInput(Problem("bigft", f"no verb {verb!r}", fix))
    module = import_module(f"bigft.cli.{verb}")
    parser = parser_of(verb)
    # intermixed: options may stand between overrides, as in `a.b=c --nproc 4 d.e=f`
    parse = getattr(module, "parse", None)
    code: int = module.run(parse(parser, rest) if parse else parser.parse_intermixed_args(rest))
    return code


def parser_of(verb: str) -> ArgumentParser:
    """What `bigft VERB` takes."""
    from argparse import ArgumentParser

    parser = ArgumentParser(prog=f"bigft {verb}", description=VERBS[verb], allow_abbrev=False)
    import_module(f"bigft.cli.{verb}").add_arguments(parser)
    return parser


def _leave_for_the_job(refused: BadInput) -> None:
    """The first problem, where a job script on this host has made the file for it."""
    first, *more = refused.problems
    with suppress(OSError), open(os.environ.get(REFUSAL, ""), "r+", encoding="utf-8") as file:
        file.write(f"{first}" + (f" (and {len(more)} more: see above)" if more else ""))


def _help() -> str:
    lines = [f"  {verb:12}{what}" for verb, what in VERBS.items()]
    return "\n".join(
        [
            "usage: bigft VERB ... | --version | --help",
            "",
            *lines,
            "",
            "`bigft VERB --help` tells more.",
        ]
    )
