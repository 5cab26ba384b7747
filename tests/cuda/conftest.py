"""The CUDA kernels on an emulated device: csrc/*/kernels.cu compiled by g++ for the CPU."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from ctypes import c_bool, c_int, c_int64, c_size_t, c_void_p
from pathlib import Path

import pytest
from cuda.emulated import CrossEntropyRows, CrossEntropyTile, Emulator, TokenHeadRows

REPOSITORY = Path(__file__).resolve().parents[2]
EMULATION = Path(__file__).parent / "emulation"
KERNELS = sorted(REPOSITORY.glob("csrc/*/kernels.cu"))
# Traps, so that a misaligned vector or an index out of its array becomes an error of the test.
SANITIZERS = "alignment,bounds,null,shift,signed-integer-overflow"
FLAGS = [
    *("-x", "c++", "-std=c++20", "-O1", "-fPIC", "-Wall", "-Wno-unknown-pragmas"),
    *("-DBIGFT_EMULATION", f"-I{EMULATION}", f"-I{REPOSITORY / 'csrc'}"),
    *(f"-fsanitize={SANITIZERS}", "-fsanitize-undefined-trap-on-error"),
]


@pytest.fixture(scope="session")
def built_emulator(tmp_path_factory: pytest.TempPathFactory) -> Emulator:
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++, which compiles the CUDA kernels for the CPU")
    folder = tmp_path_factory.mktemp("emulation")

    def compiled(source: Path) -> str:
        out = str(folder / f"{source.parent.name}.o")
        subprocess.run([compiler, *FLAGS, "-c", str(source), "-o", out], check=True)
        return out

    with ThreadPoolExecutor(2) as pool:
        objects = list(pool.map(compiled, [*KERNELS, EMULATION / "emulation.cpp"]))
    shared = str(folder / "emulated.so")
    subprocess.run([compiler, "-shared", *objects, "-o", shared], check=True)
    library = ctypes.CDLL(shared)
    library.last_error.restype = ctypes.c_char_p
    library.scale.argtypes = [c_void_p, c_int, c_int64, c_void_p, c_bool]
    known = [ctypes.sizeof(s) for s in (CrossEntropyRows, CrossEntropyTile, TokenHeadRows)]
    assert list((c_size_t * 3).in_dll(library, "struct_bytes")) == known  # rows.h has changed
    return Emulator(library)


@pytest.fixture
def emulator(built_emulator: Emulator) -> Emulator:
    built_emulator.set_device()
    return built_emulator
