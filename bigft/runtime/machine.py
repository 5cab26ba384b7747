"""What a run needs of this machine: accelerators for its ranks, the port where they meet, libraries
that fit each other. And what of the machine decides the last bits of a run."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import socket
import traceback
from collections.abc import Mapping, Sequence

import torch

from bigft.config.errors import BadInput, Problem, reason
from bigft.config.sections import TrainConfig
from bigft.runtime.imports import importing
from bigft.runtime.launcher import Launch
from bigft.runtime.proc import read_fields
from bigft.runtime.process_group import World, choose_accelerator
from bigft.runtime.rendezvous import AGENT_LISTENS

# They choose among the kernels of MKL and oneDNN; ATEN_CPU_CAPABILITY is torch's own.
KERNEL_VARIABLES = ("MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS", "ONEDNN_MAX_CPU_ISA")


def check_accelerators(train: TrainConfig, launch: Launch) -> None:
    """Raises BadInput if this machine has too few GPUs for its ranks, or none for fp16."""
    if choose_accelerator() == "cpu":
        if train.fp16:
            fix = "set train.bf16 instead, which CPUs have, or start on a machine with a GPU"
            raise BadInput(Problem("train.fp16", "true, but this machine has no GPU", fix))
        return
    ranks, gpus = launch.local_world_size, torch.cuda.device_count()
    own_gpu = launch.kind == "slurm" and gpus == 1  # srun --gpus-per-task=1 shows each its own
    if ranks > gpus and not own_gpu:
        what = f"{ranks} on this machine, which has {gpus} GPUs"
        raise BadInput(Problem("ranks", what, "start one rank per GPU at most (--nproc)"))


def check_port(launch: Launch, environ: Mapping[str, str] = os.environ) -> None:
    """Raises BadInput if the first rank, this one, cannot listen where the others will call."""
    if environ.get(AGENT_LISTENS) == "True":
        return
    with socket.socket() as listener:
        # As torch does: a port whose last connections are just closing is free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("", launch.master_port))
        except (OSError, OverflowError) as error:
            why = error.strerror if isinstance(error, OSError) else "ports go up to 65535"
            what = f"cannot listen on port {launch.master_port}: {why}"
            fix = "set another (in site.sh, deepspeed --master_port, torchrun --master-port)"
            raise BadInput(Problem("environment: MASTER_PORT", what, fix)) from error


def arithmetic(world: World) -> dict[str, str]:
    """What decides the last bits of a run besides its config and versions: `threads` per rank, and
    the `processor` that computes. Collective; the same on every rank.

    Sums are cut up by the number of threads, and libraries choose their kernels by the processor.
    """
    own = {"threads": str(torch.get_num_threads()), "processor": processor(world.device)}
    ranks = world.gather(own)
    return {key: _by_rank([rank[key] for rank in ranks]) for key in own}


def processor(device: torch.device) -> str:
    """The GPU's name; or the CPU's, with the instructions that torch uses of it and the variables
    by which MKL and oneDNN would use others."""
    if device.type != "cpu":
        return torch.cuda.get_device_name(device)
    cpu = read_fields("/proc/cpuinfo")
    known = [cpu.get("model name", platform.machine())]
    # Virtual machines of one name may run on several generations.
    known += [f"{key} {cpu[key]}" for key in ("cpu family", "model") if key in cpu]
    chosen = [f"{name}={os.environ[name]}" for name in KERNEL_VARIABLES if name in os.environ]
    return ", ".join([*known, torch.backends.cpu.get_cpu_capability(), *chosen])


def peak_memory_mib(world: World) -> float:
    """The most that the rank which needed most has held so far: of its GPU's memory, in tensors; on
    a CPU, resident. Collective."""
    if world.device.type == "cuda":
        peak = torch.cuda.max_memory_allocated(world.device) / 2**20
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return float(max(world.gather(peak)))


def _by_rank(values: Sequence[str]) -> str:
    """The value of all ranks, or which ranks have which."""
    ranks: dict[str, list[str]] = {}
    for rank, value in enumerate(values):
        ranks.setdefault(value, []).append(str(rank))
    if len(ranks) == 1:
        return values[0]
    return "; ".join(f"{value} on rank {', '.join(these)}" for value, these in ranks.items())


def check_libraries() -> None:
    """Raises BadInput if transformers' models cannot be imported, and names the package that stops
    them: most often one that was built for another torch, as torchvision's operators are."""
    try:
        with importing():
            import transformers.modeling_utils  # noqa: F401
    except Exception as error:  # an operator that is missing is a RuntimeError
        while (cause := error.__cause__ or error.__context__) is not None:
            error = cause  # type: ignore[assignment]
        package = _culprit(error)
        if package is None:
            where, what = "environment: transformers", "its models cannot be imported"
            fix = "install the versions of constraints.txt"
        else:
            where = f"environment: {package} {importlib.metadata.version(package)}"
            what = f"cannot be imported beside torch {torch.__version__}"
            what += ", so no model of transformers can be"
            fix = f"install the {package} that is built for this torch, or remove it if nothing "
            fix += f"else needs it (pip uninstall {package})"
        why = reason(error, first_line=True)
        raise BadInput(Problem(where, f"{what} ({why})", fix)) from error


def _culprit(error: BaseException) -> str | None:
    """The package whose code was the last to run, but for those that bigft cannot do without."""
    distributions = importlib.metadata.packages_distributions()
    found = None
    for frame, _ in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__")).partition(".")[0]
        if module in distributions and module not in ("torch", "transformers", "bigft"):
            found = distributions[module][0]
    return found
