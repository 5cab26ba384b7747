"""DeepSpeed's checkpoint files, written durably and read without unpickling strangers."""

from __future__ import annotations

import os
from typing import Any

import torch
from deepspeed.runtime.checkpoint_engine import CheckpointCommitInfo
from deepspeed.runtime.checkpoint_engine.checkpoint_engine import CheckpointEngine


def allowed_classes() -> list[Any]:
    """DeepSpeed's own classes that its shards hold beside tensors; nothing else is unpickled."""
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.runtime.zero.config import ZeroStageEnum
    from deepspeed.utils.tensor_fragment import fragment_address

    return [DynamicLossScaler, LossScaler, ZeroStageEnum, fragment_address]


class SafeCheckpointEngine(CheckpointEngine):
    """Writes with torch.save and fsync; loads with weights_only=True.

    A shard that holds any other class raises pickle.UnpicklingError and runs nothing.
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
        with torch.serialization.safe_globals(allowed_classes()):
            return torch.load(path, map_location=map_location, weights_only=True)

    def commit(self, info: CheckpointCommitInfo) -> bool:
        return True
