"""DeepSpeed's checkpoint files, written durably and read without unpickling strangers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pickle import UnpicklingError
from typing import Any

import torch
from deepspeed.runtime.checkpoint_engine import CheckpointCommitInfo
from deepspeed.runtime.checkpoint_engine.checkpoint_engine import CheckpointEngine
from torch import nn

from bigft.config.errors import BadInput, Problem


def allowed_classes() -> list[Any]:
    """DeepSpeed's own classes that its shards hold beside tensors; nothing else is unpickled."""
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]


def unusable(path: str | os.PathLike[str], why: str) -> BadInput:
    mend = "name an older checkpoint-<step>"
    return BadInput(Problem("train.resume_from_checkpoint", f"{path}: {why}", mend))


def trained_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """Of the module's state: trained parameters by all their names, and buffers.

    What is left out, frozen weights and how they are quantised, is the pretrained model's.
    """
    kept = {name for name, _ in module.named_buffers(remove_duplicate=False)}
    parameters = module.named_parameters(remove_duplicate=False)
    kept |= {name for name, parameter in parameters if parameter.requires_grad}
    return {name: value for name, value in module.state_dict().items() if name in kept}


@contextmanager
def only_trained(engine: Any) -> Iterator[None]:
    """In the block the engine saves `trained_state`: its own option forgets the second names of
    tied weights, and what belongs to 4-bit ones."""
    engine.module_state_dict = lambda *args, **kwargs: trained_state(engine.module)
    try:
        yield
    finally:
        del engine.module_state_dict


class SafeCheckpointEngine(CheckpointEngine):
    """Writes with torch.save and fsync; loads with weights_only=True.

    A shard that is damaged or holds any other class raises BadInput and runs nothing.
    """

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.name = "bigft"

    def create(self, info: CheckpointCommitInfo) -> None:
        pass

    def save(self, state_dict: Any, path: str) -> None:
        with open(path, "wb") as file:
            torch.save(state_dict, file)
            file.flush()
            os.fsync(file.fileno())

    def load(self, path: str, map_location: Any = None) -> Any:
        try:
            with torch.serialization.safe_globals(allowed_classes()):
                return torch.load(path, map_location=map_location, weights_only=True)
        except UnpicklingError as error:  # its text advises to run whatever the file holds
            raise unusable(path, "damaged, or made by something else than bigft") from error
        except (OSError, EOFError, RuntimeError) as error:
            raise unusable(path, str(error).partition("\n")[0]) from error

    def commit(self, info: CheckpointCommitInfo) -> bool:
        return True
