"""`checkpoint-<step>/` directories: DeepSpeed's shards beside the loop's own few numbers.

A checkpoint is written under a temporary name and renamed when every rank is done, so a directory
called `checkpoint-<step>` is whole.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bigft.config.errors import BadInput, Problem
from bigft.runtime.process_group import World
from bigft.runtime.run_directory import RunDirectory
from bigft.training.checkpoint.shards import only_trained, trained_state, unusable

SHARDS = "ds"  # DeepSpeed's tag: the subdirectory with its files
STATE = "trainer.json"
COMMIT = "COMMIT"  # the last file written: its presence is what makes a checkpoint


@dataclass(slots=True)
class TrainerState:
    """What the loop needs to go on besides the engine: everything else is a function of the step.

    step: optimizer steps done.  world_size: of the run that saved.  global_batch: what a step is.
    data_fingerprint: of the data it was trained on.
    best_metric, best_step: of metric_for_best_model so far; None before the first evaluation.
    evaluations_without_gain: for early stopping.
    loss_sums, since the last log line, by rank: fp64, so that the next line has the same bits.
    targets, tokens, skipped_steps: since the last log line, and of the whole run.
    fused_head: whether the fused head trained; None where an older version saved.
    kept: what a run that goes on must not change, by key (`what_stays`).
    """

    step: int = 0
    world_size: int = 1
    global_batch: dict[str, int] = field(default_factory=dict)
    data_fingerprint: str = ""
    best_metric: float | None = None
    best_step: int | None = None
    evaluations_without_gain: int = 0
    loss_sums: list[float] = field(default_factory=list)
    window_targets: int = 0
    total_loss: float = 0.0
    total_targets: int = 0
    total_tokens: int = 0
    training_seconds: float = 0.0
    skipped_steps: int = 0
    fused_head: bool | None = None
    kept: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def read(cls, checkpoint: Path) -> TrainerState:
        """Raises BadInput if the directory is no checkpoint of bigft's."""
        try:
            return cls(**json.loads((checkpoint / STATE).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise BadInput(
                Problem(
                    "train.resume_from_checkpoint",
                    f"{checkpoint} is not a checkpoint of bigft ({error})",
                    "name a checkpoint-<step> directory, or `true` for the newest",
                )
            ) from error


class CheckpointStore:
    """Saves, finds, loads and prunes the checkpoints of one run directory."""

    def __init__(self, directory: RunDirectory, world: World, save_total_limit: int | None) -> None:
        self._directory = directory
        self._world = world
        self._limit = save_total_limit

    def save(self, engine: Any, state: TrainerState) -> Path:
        """Writes `checkpoint-<step>` and returns its path; frozen parameters are not in it.

        Collective.
        """
        final = self._directory.path / f"checkpoint-{state.step}"
        temporary = self._directory.path / f".tmp-checkpoint-{state.step}"
        if self._world.is_first:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir()
        self._world.barrier()
        with only_trained(engine):
            engine.save_checkpoint(
                str(temporary), tag=SHARDS, save_latest=False, exclude_frozen_parameters=True
            )
        self._world.barrier()
        if self._world.is_first:
            text = json.dumps(asdict(state), indent=2)
            (temporary / STATE).write_text(text, encoding="utf-8")
            (temporary / COMMIT).write_text(hashlib.sha256(text.encode()).hexdigest() + "\n")
            _replace_directory(temporary, final)
            self._set_aside_beyond(state.step)
            self._point_best_at(state.best_step)
            self._prune(state)
        self._world.barrier()
        return final

    def load(self, engine: Any, checkpoint: Path) -> None:
        """Puts the checkpoint's weights and optimizer into the engine. Collective.

        Raises BadInput if a shard is missing, damaged, holds more than tensors or other parameters
        than are trained.
        """
        if not any((checkpoint / SHARDS).glob("*_model_states.pt")):
            raise unusable(checkpoint / SHARDS, "no DeepSpeed checkpoint in it")

        def put_into(src: dict[str, Any], dst: Any) -> None:
            if _shapes(src) != _shapes(trained_state(dst)):
                what = f"{checkpoint} holds other parameters than this config trains"
                mend = "keep the section adapt of the run that continues"
                raise BadInput(Problem("train.resume_from_checkpoint", what, mend))
            dst.load_state_dict(src, strict=False)

        engine.load_checkpoint(str(checkpoint), tag=SHARDS, custom_load_fn=put_into)

    def _set_aside_beyond(self, step: int) -> None:
        """What a run left that was resumed from before it: not where this one goes on."""
        for later, path in self._directory.checkpoints():
            if later > step:
                aside = path.with_name(f"superseded-{path.name}")
                shutil.rmtree(aside, ignore_errors=True)
                os.replace(path, aside)

    def _point_best_at(self, step: int | None) -> None:
        if not (self._directory.path / f"checkpoint-{step}").is_dir():
            return  # no evaluation yet, or the best step was not one that is saved
        link = self._directory.path / ".tmp-best"
        link.unlink(missing_ok=True)
        link.symlink_to(f"checkpoint-{step}")
        os.replace(link, self._directory.path / "best")

    def _prune(self, state: TrainerState) -> None:
        if self._limit is None:
            return
        found = self._directory.checkpoints()
        # A resume needs the one just written, load_best_model_at_end the best: they always stay.
        others = [item for item in found if item[0] not in (state.step, state.best_step)]
        num_surplus = min(len(found) - self._limit, len(others))
        for _, path in others[: max(num_surplus, 0)]:
            trash = path.with_name(f".trash-{path.name}")
            os.replace(path, trash)
            shutil.rmtree(trash, ignore_errors=True)


def _shapes(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def _replace_directory(new: Path, final: Path) -> None:
    if final.exists():  # the same step again, after a resume from an older checkpoint
        shutil.rmtree(final.with_name(f".trash-{final.name}"), ignore_errors=True)
        os.replace(final, final.with_name(f".trash-{final.name}"))
    os.replace(new, final)
    shutil.rmtree(final.with_name(f".trash-{final.name}"), ignore_errors=True)
