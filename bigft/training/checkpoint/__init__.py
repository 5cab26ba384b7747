"""Checkpoints of a run: old or new, never torn; verified before anything is read from them."""

from __future__ import annotations

from bigft.training.checkpoint.resume import (
    checkpoint_to_resume,
    resume_fingerprint,
    resume_notes,
)
from bigft.training.checkpoint.state import TrainerState
from bigft.training.checkpoint.store import CheckpointStore, Saved

__all__ = [
    "CheckpointStore",
    "Saved",
    "TrainerState",
    "checkpoint_to_resume",
    "resume_fingerprint",
    "resume_notes",
]
