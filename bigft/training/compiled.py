"""Operators of other libraries that are compiled at their first use, as DeepSpeed's CPUAdam is.

torch marks a build that is under way by a file. A build that is killed leaves the file behind, and
every later one then waits for it without end. Here a build also holds a lock, which the kernel
frees when its holder dies: whoever has the lock knows that a mark is of a dead build. What was
compiled for one processor is not loaded on another that shares the directory.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from bigft.config.errors import BadInput, Problem, reason
from bigft.data.cache import cache_root, locked
from bigft.runtime.environment import variables
from bigft.runtime.proc import read_fields

log = logging.getLogger(__name__)

DIRECTORY = "TORCH_EXTENSIONS_DIR"  # where torch compiles; the user's own value is kept


def extensions() -> Path:
    """Where this processor's operators lie, for these versions: in TORCH_EXTENSIONS_DIR or bigft's
    cache."""
    cpu = read_fields("/proc/cpuinfo")
    built_for = [sys.version, *(cpu.get(key, "") for key in ("vendor_id", "flags", "Features"))]
    digest = hashlib.sha256("\n".join(built_for).encode()).hexdigest()[:8]
    deepspeed = importlib.metadata.version("deepspeed")
    root = Path(os.environ.get(DIRECTORY) or cache_root("extensions")).expanduser()
    return root / f"torch-{torch.__version__}-deepspeed-{deepspeed}-{digest}"


def check_compiler(name: str, where: str) -> None:
    """Raises BadInput if the operator is neither compiled yet nor can be.

    where: the key that asks for it.
    """
    if (extensions() / name / f"{name}.so").exists():
        return
    compiler = os.environ.get("CXX", "c++")
    missing = [tool for tool in (compiler, "ninja") if shutil.which(tool, path=_path()) is None]
    if missing:
        what = f"{name} is compiled at its first use, and there is no {' and no '.join(missing)}"
        raise BadInput(
            Problem(where, what, "install it (CXX names the compiler), or choose another")
        )


@contextmanager
def compiling(name: str, where: str) -> Iterator[None]:
    """Inside, torch loads the operator or compiles it, one process of all at a time.

    name: of the operator's directory.  where: the key that asks for it.
    Raises BadInput if it cannot be compiled.
    """
    check_compiler(name, where)
    directory = extensions()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with locked(directory / f"{name}.lock") as held:
            if held and (mark := directory / name / "lock").exists():
                log.warning("a build of %s was killed: compiling it again", name)
                mark.unlink()
            with variables(**{DIRECTORY: str(directory), "PATH": _path()}):
                yield
    except (OSError, RuntimeError) as error:
        why = reason(error.__cause__ or error, first_line=True)
        what = f"{name} cannot be compiled in {directory}: {why}"
        fix = "see what the compiler says above, or choose another"
        raise BadInput(Problem(where, what, fix)) from error


def _path() -> str:
    """PATH, with the programs of this environment, which need not be activated: ninja is one."""
    return os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
