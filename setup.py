"""Builds the compiled parts of bigft; everything else about the package is in pyproject.toml.

bigft._host needs pybind11 only. bigft._ops, the operators, is built against the torch that is
installed; without one it is left out and bigft computes them in plain torch.

BIGFT_CUDA=auto|0|1  kernels for GPUs: where nvcc and a CUDA build of torch are both there (auto),
                     never, or always (an error where one of them is missing)
TORCH_CUDA_ARCH_LIST the GPUs to build for, as torch's own extensions read it
BIGFT_FAULTS=1       a build for the mutation tests, with faults that can be planted at run time
"""

from __future__ import annotations

import os
import shutil
from glob import glob

from pybind11.setup_helpers import Pybind11Extension
from setuptools import Extension, setup

ARCHITECTURES = "8.0;8.9;9.0;10.0+PTX"
# No -march=native: a wheel built on one node of a cluster must run on all of them. The operators
# choose their instruction set when they run (csrc/common/isa.h).
# -g0: Python adds the -g of its own build, and half of the time would go into debugging symbols.
HOST_FLAGS = ["-O3", "-Wall", "-g0"]
DEFAULT_CUDA_HOME = "/usr/local/cuda"
CUDA_HEADER = "include/cuda_runtime.h"  # not beside an nvcc that is a script in /usr/local/bin
# NaN and infinity keep their meaning; only traps and errno, which nobody reads, are given up.
OPS_FLAGS = [*HOST_FLAGS, "-std=c++20", "-fopenmp", "-fno-math-errno", "-fno-trapping-math"]
NVCC_FLAGS = ["-O3", "-std=c++20", "-ftz=true", "-lineinfo"]  # tests/cuda/compile.py has them too


def host() -> Extension:
    return Pybind11Extension(
        "bigft._host",
        sources=sorted(glob("csrc/host/*.cpp")),
        depends=sorted(glob("csrc/host/*.h")),
        cxx_std=17,
        extra_compile_args=HOST_FLAGS,
    )


def with_cuda() -> bool:
    """Decides by what is installed: a machine that only builds need not have a GPU."""
    import torch
    from torch.utils import cpp_extension

    asked = os.environ.get("BIGFT_CUDA", "auto")
    if asked not in ("auto", "0", "1"):
        raise SystemExit(f"BIGFT_CUDA is {asked!r}; it should be auto, 0 or 1")
    homes = filter(None, (cpp_extension.CUDA_HOME, DEFAULT_CUDA_HOME))  # the first: nvcc on PATH
    home = next((each for each in homes if os.path.exists(f"{each}/{CUDA_HEADER}")), None)
    cpp_extension.CUDA_HOME = home
    nvcc = shutil.which("nvcc", path=f"{home}/bin") if home else None
    missing = [] if nvcc else [f"no CUDA_HOME with nvcc and {CUDA_HEADER}"]
    missing += [] if torch.version.cuda else [f"torch {torch.__version__} is a build without CUDA"]
    if asked == "1" and missing:
        raise SystemExit(f"BIGFT_CUDA=1, but {' and '.join(missing)}")
    use = asked != "0" and not missing
    why = "" if use else f" ({'BIGFT_CUDA=0' if asked == '0' else ' and '.join(missing)})"
    print(f"bigft._ops: torch {torch.__version__}, CPU{' and CUDA' if use else ' only'}{why}")
    return use


def ops() -> Extension:
    from torch.utils.cpp_extension import CppExtension, CUDAExtension

    cuda = with_cuda()
    macros = [("BIGFT_CUDA", None)] if cuda else []
    macros += [("BIGFT_FAULTS", None)] if os.environ.get("BIGFT_FAULTS") == "1" else []
    sources = {*glob("csrc/*.cpp"), *glob("csrc/*/*.cpp")} - {*glob("csrc/host/*.cpp")}
    sources = sources | {*glob("csrc/*/*.cu")} if cuda else sources - {*glob("csrc/*/cuda.cpp")}
    if cuda:
        os.environ.setdefault("TORCH_CUDA_ARCH_LIST", ARCHITECTURES)
    return (CUDAExtension if cuda else CppExtension)(
        "bigft._ops",
        sources=sorted(sources),
        depends=sorted(glob("csrc/**/*.h", recursive=True) + glob("csrc/**/*.cuh", recursive=True)),
        define_macros=macros,
        extra_compile_args={"cxx": OPS_FLAGS, "nvcc": NVCC_FLAGS},
        extra_link_args=["-fopenmp"],
    )


try:
    from torch.utils.cpp_extension import BuildExtension
except ImportError as error:
    print(f"bigft._ops is left out: torch cannot be imported ({error})")
    from pybind11.setup_helpers import build_ext

    setup(ext_modules=[host()], cmdclass={"build_ext": build_ext})
else:
    setup(ext_modules=[host(), ops()], cmdclass={"build_ext": BuildExtension})
