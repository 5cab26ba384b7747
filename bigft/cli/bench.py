"""`bigft bench NAME`: runs benchmarks/bench_<NAME>.py of the checkout."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from difflib import get_close_matches
from pathlib import Path

import bigft
from bigft.config.errors import BadInput, Problem

CHECKOUT = Path(bigft.__file__).resolve().parents[1]
PREFIX = "bench_"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", nargs="?", help="the subject; left out: lists them")
    parser.add_argument(
        "words", nargs="*", help="more words for the benchmark, after --: -- --seconds 5"
    )
    parser.add_argument("--device", choices=["cpu", "cuda"], help="a GPU if there is one")
    parser.add_argument("--quick", action="store_true", help="tiny shapes, to see that all runs")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the results")


def run(args: argparse.Namespace) -> int:
    benchmarks = find(CHECKOUT / "benchmarks")
    if args.name is None:
        print("\n".join(benchmarks))
        return 0
    if args.name not in benchmarks:
        nearest = get_close_matches(args.name, benchmarks, n=1)
        names = ", ".join(benchmarks)
        fix = f"did you mean {nearest[0]}?" if nearest else f"choose one of {names}"
        raise BadInput(Problem("bigft bench", f"no benchmark {args.name!r}", fix))
    if args.device == "cuda":
        require_cuda()
    words = [*(["--device", args.device] if args.device else []), *args.words]
    words += ["--quick"] if args.quick else []
    words += ["--out", str(args.out)] if args.out else []
    path = os.pathsep.join(filter(None, [str(CHECKOUT), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, str(benchmarks[args.name]), *words]
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False).returncode


def find(folder: Path) -> dict[str, Path]:
    """The file of every benchmark, by name."""
    files = sorted(folder.glob(f"{PREFIX}*.py"))
    if not files:
        what = f"no benchmarks in {folder}: they are not part of an installed bigft"
        raise BadInput(Problem("bigft bench", what, "run it from a checkout (pip install -e .)"))
    return {file.stem.removeprefix(PREFIX): file for file in files}


def require_cuda() -> None:
    import torch

    if not torch.cuda.is_available():
        what = f"torch {torch.__version__} sees no CUDA device"
        raise BadInput(Problem("bigft bench: --device cuda", what, "choose --device cpu"))
