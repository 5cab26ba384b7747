"""Checkpoints of a run: written whole or not at all, the best one kept, the newest continued."""

from __future__ import annotations

from bigft.training.checkpoint.store import CheckpointStore, TrainerState

__all__ = ["CheckpointStore", "TrainerState"]
