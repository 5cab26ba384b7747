"""Compiles every kernel for every GPU that is supported, and the host files beside them.

Needs nvcc and any build of torch, no GPU. Prints what each kernel takes of a multiprocessor; fails
where a file does not compile without warnings, and where a kernel spills registers. Run by
`make test-cuda-compile`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
TARGETS = ["sm_80", "sm_89", "sm_90", "sm_100"]
# As setup.py and torch's CUDAExtension build.
NVCC_FLAGS = [
    *("-O3", "-std=c++20", "-ftz=true", "--expt-relaxed-constexpr"),
    *(f"-D__CUDA_NO_{what}__" for what in ("HALF_OPERATORS", "HALF_CONVERSIONS")),
    *(f"-D__CUDA_NO_{what}__" for what in ("BFLOAT16_CONVERSIONS", "HALF2_OPERATORS")),
    *("-Werror", "all-warnings", "-Xcompiler", "-Wall", "-Xptxas", "-v"),
]
# c10/cuda lacks one generated header in a CPU build of torch, and can do without.
HOST_FLAGS = ["-std=c++20", "-fsyntax-only", "-Wall", "-Werror", "-Wno-unknown-pragmas"]
HOST_FLAGS += ["-DBIGFT_CUDA", "-DC10_CUDA_NO_CMAKE_CONFIGURE_FILE"]
JOBS = 2
COLUMNS = "{:<66}{:>8}{:>11}{:>8}{:>8}{:>8}"


@dataclass(frozen=True)
class Usage:
    """Of one kernel on one target; all but the registers in bytes."""

    kernel: str
    target: str
    registers: int
    spills: int
    stack: int
    shared: int


def usages(report: str) -> list[Usage]:
    """From what ptxas reports with -v."""
    found = []
    for part in report.split("Compiling entry function")[1:]:
        name, target = re.search(r"'(\S+)' for '(\S+)'", part).groups()  # type: ignore[union-attr]
        numbers = []
        for pattern in (r"(\d+) registers", r"(\d+) bytes spill stores", r"(\d+) bytes stack"):
            numbers.append(int(re.search(pattern, part).group(1)))  # type: ignore[union-attr]
        shared = re.search(r"(\d+) bytes smem", part)
        found.append(Usage(readable(name), target, *numbers, int(shared.group(1)) if shared else 0))
    return found


def readable(name: str) -> str:
    """`some_kernel<float, true>` from a mangled name."""
    whole = subprocess.run(["c++filt", name], capture_output=True, text=True).stdout
    short = re.search(r"(\w+<[^<>]*>)\(", whole)
    return short.group(1) if short else whole.strip()


def compile_kernels(nvcc: str, source: Path, target: str, folder: Path) -> tuple[str, list[Usage]]:
    """What the compiler had to say where it failed, else nothing; and what the kernels take."""
    out = folder / f"{source.parent.name}.{target}.cubin"
    command = [nvcc, *NVCC_FLAGS, f"-arch={target}", "-cubin", str(source), "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        return f"{source} for {target}:\n{done.stdout}{done.stderr}", []
    return "", usages(done.stderr)


def compile_host(cuda: Path, source: Path) -> tuple[str, list[Usage]]:
    import torch
    from torch.utils.cpp_extension import include_paths

    includes = [*include_paths(), str(cuda / "include")]
    command = [os.environ.get("CXX", "g++"), *HOST_FLAGS]
    for path in includes:
        command += ["-isystem", path]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True)
    failed = f"{source} beside torch {torch.__version__}:\n{done.stderr}" if done.returncode else ""
    return failed, []


def main() -> int:
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    nvcc = shutil.which("nvcc", path=f"{home}/bin{os.pathsep}{os.environ['PATH']}")
    if nvcc is None:
        print(f"no nvcc on PATH or in {home}/bin: set CUDA_HOME to a CUDA 13 toolkit")
        return 1
    cuda = Path(nvcc).resolve().parents[1]
    kernels = sorted(REPOSITORY.glob("csrc/**/*.cu"))
    host = [path for path in sorted(REPOSITORY.glob("csrc/**/*.cpp")) if is_for_cuda(path)]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(JOBS) as pool:
        work = [
            pool.submit(compile_kernels, nvcc, source, target, Path(folder))
            for source in kernels
            for target in TARGETS
        ]
        work += [pool.submit(compile_host, cuda, source) for source in host]
        results = [job.result() for job in work]
    failures = [failure for failure, _ in results if failure]
    found = [usage for _, usages in results for usage in usages]
    print(COLUMNS.format("kernel", "target", "registers", "spills", "stack", "shared"))
    for usage in sorted(found, key=lambda u: (u.kernel, TARGETS.index(u.target))):
        print(COLUMNS.format(*vars(usage).values()))
    print(f"{len(kernels)} .cu for {', '.join(TARGETS)}; host: {', '.join(short(h) for h in host)}")
    failures += [f"{u.kernel} spills on {u.target}" for u in found if u.spills or u.stack]
    print(*failures, sep="\n", end="\n" if failures else "")
    return 1 if failures else 0


def is_for_cuda(path: Path) -> bool:
    return path.name == "cuda.cpp" or "BIGFT_CUDA" in path.read_text()


def short(path: Path) -> str:
    return str(path.relative_to(REPOSITORY / "csrc"))


if __name__ == "__main__":
    sys.exit(main())
