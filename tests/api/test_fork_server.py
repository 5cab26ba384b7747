"""The process that forks ranks, with all that ranks load."""

from __future__ import annotations

import ast
import os
import threading
from pathlib import Path

import pytest
from waiting import wait_until

from bigft.api import session
from bigft.runtime import local_ranks
from bigft.runtime.environment import environment_of_ranks
from bigft.runtime.fork_server import ForkServer, ServerEnded
from bigft.runtime.local_ranks import Ended

# Writes the threads of the process that it was forked from, and what it has itself loaded.
RANK = """
import os, sys
from pathlib import Path
def main(argv):
    threads = Path(f"/proc/{os.getppid()}/task").iterdir()
    names = [thread.joinpath("comm").read_text().strip() for thread in threads]
    Path(argv[0]).write_text("\\n".join(sorted(names)))
    Path(argv[1]).write_text("\\n".join(sys.modules))
    return 0
"""


def imported_by_functions(file: str) -> set[str]:
    """The modules that `from MODULE import ...` names inside of the file's functions."""
    tree = ast.parse(Path(file).read_text())
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    statements = (each for function in functions for each in ast.walk(function))
    return {each.module for each in statements if isinstance(each, ast.ImportFrom) and each.module}


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "the_rank.py").write_text(RANK)
    monkeypatch.chdir(tmp_path)
    return "the_rank"


def test_no_thread_that_a_rank_needs_is_there_at_the_fork(program: str) -> None:
    """docs/reliability.md says why the others are harmless."""
    own = {**os.environ, "DS_ACCELERATOR": "cpu", "OMP_NUM_THREADS": "1"}
    environ = environment_of_ranks(1, own)
    with ForkServer(program, session.RANK_IMPORTS, environ) as server:
        ended = local_ranks.run_ranks(["threads", "modules"], 1, environ, None, server)
    assert ended == Ended()
    main, *others = sorted(Path("threads").read_text().split(), key="jemalloc_bg_thd".__eq__)
    assert main.startswith("python")
    assert set(others) <= {"jemalloc_bg_thd"}
    loaded = Path("modules").read_text().split("\n")
    assert {"torch", "deepspeed", "transformers.modeling_utils"} <= set(loaded)
    assert imported_by_functions(session.__file__) - set(loaded) == set()
    assert not {"pandas", "sklearn"} & set(loaded)


def test_a_server_that_cannot_load_ends_the_run_with_a_sentence(
    program: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with ForkServer(program, ["no_such_module"], os.environ) as server:
        ended = local_ranks.run_ranks(["a", "b"], 2, os.environ, None, server)
    assert (ended.code, ended.rank) == (1, 0)
    assert ended.why == "the process that forks ranks ended, by exit code 1"
    assert f"bigft: {ended.why}\n" in capfd.readouterr().err


def test_a_server_that_is_killed_ends_its_ranks_and_is_named(program: str, tmp_path: Path) -> None:
    killing = "import os, signal, time\n"
    killing += "def main(argv): os.kill(os.getppid(), signal.SIGKILL); time.sleep(1000)"
    (tmp_path / "the_rank.py").write_text(killing)
    with ForkServer(program, [], os.environ) as server:
        ended = local_ranks.run_ranks([], 1, os.environ, None, server)
        assert (ended.code, ended.why) == (1, "the process that forks ranks ended, by exit code -9")
        with pytest.raises(ServerEnded, match="ended, by exit code -9"):
            server.fork([], os.environ, None)


def test_nothing_of_a_server_stays(program: str) -> None:
    files, threads = set(os.listdir("/proc/self/fd")), set(threading.enumerate())
    with ForkServer(program, [], os.environ) as server:
        assert local_ranks.run_ranks(["a", "b"], 1, os.environ, None, server) == Ended()
    assert set(os.listdir("/proc/self/fd")) <= files
    wait_until(lambda: set(threading.enumerate()) <= threads)


def test_where_a_gpu_may_be_ranks_are_new_processes() -> None:
    with session._fork_server({**os.environ, "DS_ACCELERATOR": "cuda"}) as server:
        assert server is None
    with session._fork_server({**os.environ, "DS_ACCELERATOR": "cpu"}) as server:
        assert isinstance(server, ForkServer)
