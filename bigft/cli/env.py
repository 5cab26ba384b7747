"""`bigft env`: what a bug report needs to know of this machine; secrets are never printed."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import re
from collections.abc import Mapping
from typing import Any

import bigft
from bigft.config.errors import BadInput
from bigft.runtime.proc import read_fields

PACKAGES = (
    "torch", "transformers", "deepspeed", "peft", "bitsandbytes", "datasets", "tokenizers",
    "accelerate", "safetensors", "numpy", "pyarrow", "pydantic", "tensorboard", "torchvision",
)  # fmt: skip
EXTENSIONS = ("bigft._host",)
CPU_FLAGS = (
    "avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_tile", "amx_bf16", "asimd", "sve", "bf16",
)  # fmt: skip
VARIABLES = re.compile(
    r"(BIGFT|CUDA|DS|HF|HUGGING|LD|LOCAL|MALLOC|MASTER|MKL|NCCL|NVIDIA|OMP|PYTHON|PYTORCH|SLURM"
    r"|TOKENIZERS|TORCH|TORCHELASTIC|TRANSFORMERS|WANDB)_|(GLOO_\w+|RANK|WORLD_SIZE|PYTHONPATH)$"
)
SECRET = re.compile(r"(TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIALS?|AUTH|JWT)(_|$)")
USER_IN_URL = re.compile(r"//[^/@\s]*@")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object, for scripts")


def run(args: argparse.Namespace) -> int:
    facts = collect(os.environ)
    print(json.dumps(facts, indent=2) if args.json else as_text(facts))
    return 0


def collect(environ: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    return {
        "packages": {
            "python": platform.python_version(),
            "bigft": bigft.__version__,
            **{package: _version(package) for package in PACKAGES},
        },
        "system": system(),
        "accelerators": accelerators(),
        "imports": imports(),
        "extensions": {name: _extension(name) for name in EXTENSIONS},
        "operators": operators(),
        "environment": environment(environ),
    }


def as_text(facts: dict[str, dict[str, Any]]) -> str:
    lines = []
    for section, rows in facts.items():
        width = max(map(len, rows), default=0)
        lines += [section, *(f"  {key:<{width}}  {value}" for key, value in rows.items())]
    return "\n".join(lines)


def system() -> dict[str, Any]:
    cpuinfo = read_fields("/proc/cpuinfo")
    flags = cpuinfo.get("flags", cpuinfo.get("Features", "")).split()
    return {
        "os": platform.platform(),
        "libc": " ".join(platform.libc_ver()),
        "cpu": cpuinfo.get("model name", platform.machine()),
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)),
        "cpu_flags": " ".join(flag for flag in CPU_FLAGS if flag in flags),
        "memory": read_fields("/proc/meminfo").get("MemTotal"),
        "memory_available": read_fields("/proc/meminfo").get("MemAvailable"),
    }


def accelerators() -> dict[str, Any]:
    import torch

    facts: dict[str, Any] = {"cuda_of_torch": torch.version.cuda}
    if not torch.cuda.is_available():
        return {**facts, "devices": "none"}
    nccl = torch.cuda.nccl.version()
    facts["nccl"] = ".".join(map(str, nccl))
    for index in range(torch.cuda.device_count()):
        device = torch.cuda.get_device_properties(index)
        capability = f"sm_{device.major}{device.minor}"
        facts[f"cuda:{index}"] = f"{device.name}, {capability}, {device.total_memory >> 20} MiB"
    return facts


def imports() -> dict[str, str]:
    """Whether the models of transformers can be imported beside the other packages."""
    from bigft.runtime.machine import check_libraries

    try:
        check_libraries()
    except BadInput as refused:
        return {"models of transformers": str(refused)}
    return {"models of transformers": "ok"}


def operators() -> dict[str, str]:
    """What computes the fused operators on each kind of device, and why not the native ones."""
    from bigft.ops import native

    return native.build_info()


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that change a run; of secrets only that they are set."""
    return {
        name: "set" if SECRET.search(name) else USER_IN_URL.sub("//***@", value)
        for name, value in sorted(environ.items())
        if VARIABLES.match(name)
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _extension(name: str) -> str:
    """Where a compiled part lies, or why it is not there."""
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        return f"not available ({error})"
    return str(module.__file__)
