"""A build that is killed holds up no later one; what is compiled is the processor's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from waiting import PATIENCE, wait_until

from bigft.config.errors import BadInput
from bigft.training import compiled
from bigft.training.compiled import check_compiler, compiling, extensions

SOURCE = 'extern "C" int answer() { return 42; }\n'
LOAD = """\
import sys
from torch.utils.cpp_extension import load
from bigft.training.compiled import compiling
with compiling("answer", "optim.optim"):
    print(load(name="answer", sources=[sys.argv[1]], is_python_module=False, verbose=True))
"""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BIGFT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    path = tmp_path / "answer.cpp"
    path.write_text(SOURCE)
    return path


def build(source: Path, **environ: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", LOAD, str(source)],
        env=os.environ | environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def test_a_build_goes_on_after_one_that_was_killed(source: Path) -> None:
    hangs = source.with_name("c++")
    hangs.write_text('#!/bin/sh\n[ "$1" = -MMD ] && sleep 600\nexec c++ "$@"\n')
    hangs.chmod(0o755)
    killed = build(source, CXX=str(hangs))
    mark = extensions() / "answer" / "lock"
    wait_until(lambda: mark.exists() or killed.poll() is not None)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert mark.exists(), "torch leaves it behind: without bigft's lock the next build would wait"

    said, _ = build(source).communicate(timeout=PATIENCE)
    assert "a build of answer was killed" in said
    assert (extensions() / "answer" / "answer.so").exists(), said
    assert not mark.exists()


def test_the_environment_is_left_as_it_was(source: Path) -> None:
    before, directory = dict(os.environ), str(extensions())
    with compiling("answer", "optim.optim"):
        assert os.environ["TORCH_EXTENSIONS_DIR"] == directory
    assert dict(os.environ) == before


def test_another_processor_compiles_its_own(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = extensions()
    fields = {"vendor_id": "GenuineIntel", "flags": "fpu sse2"}
    monkeypatch.setattr(compiled, "read_fields", lambda path: fields)
    assert extensions() != ours
    assert extensions().parent == ours.parent


def test_no_compiler_is_told_before_training(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-c++")
    with pytest.raises(BadInput, match=r"optim.optim: .* there is no no-such-c\+\+; install it"):
        check_compiler("answer", "optim.optim")


def test_what_cannot_be_compiled_is_told(source: Path) -> None:
    with (
        pytest.raises(BadInput, match=r"^optim.optim: answer cannot be compiled in .*: RuntimeErr"),
        compiling("answer", "optim.optim"),
    ):
        raise RuntimeError("Error building extension 'answer'")
