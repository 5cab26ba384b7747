"""What a run needs of this machine: accelerators for its ranks, and the port where they meet."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

import torch

from bigft.config.errors import BadInput, Problem
from bigft.config.sections import TrainConfig
from bigft.runtime.launcher import Launch
from bigft.runtime.process_group import choose_accelerator
from bigft.runtime.rendezvous import AGENT_LISTENS


def check_accelerators(train: TrainConfig, launch: Launch) -> None:
    """Raises BadInput if this machine has too few GPUs for its ranks, or none for fp16."""
    if choose_accelerator() == "cpu":
        if train.fp16:
            mend = "set train.bf16 instead, which CPUs have, or start on a machine with a GPU"
            raise BadInput(Problem("train.fp16", "true, but this machine has no GPU", mend))
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
            reason = error.strerror if isinstance(error, OSError) else "ports go up to 65535"
            what = f"cannot listen on port {launch.master_port}: {reason}"
            mend = "set another (in site.sh, deepspeed --master_port, torchrun --master-port)"
            raise BadInput(Problem("environment: MASTER_PORT", what, mend)) from error
