"""`checkpoint-<step>/` directories: saved by all ranks or by none, loaded when they verify.

A save is written under a temporary name. The first rank makes it a checkpoint, once every rank has
told what it wrote, by writing MANIFEST.json and COMMIT and renaming. Other ranks are told names and
outcomes; they never look for them, since network file systems lag.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bigft.config.errors import BadInput, Problem
from bigft.runtime.lock import LockLost
from bigft.runtime.run_directory import RunDirectory
from bigft.training.checkpoint import retention
from bigft.training.checkpoint.files import (
    Stamp,
    Tick,
    make_directory,
    rename,
    sync_directory,
    write_durably,
)
from bigft.training.checkpoint.manifest import (
    COMMIT,
    MANIFEST,
    SHARDS,
    STATE,
    Damaged,
    Manifest,
    commit_text,
    rank_file,
)
from bigft.training.checkpoint.state import TrainerState

if TYPE_CHECKING:
    from bigft.runtime.process_group import World

LOST = "another run has taken the directory over, or its LOCK is gone"


@dataclass(frozen=True, slots=True)
class Saved:
    """path: of the checkpoint; None where the save was given up, on all ranks, and then `why`."""

    path: Path | None
    why: str = ""
    num_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _Written:
    files: dict[str, Stamp]
    why: str


class CheckpointStore:
    """Saves, verifies, loads and collects the checkpoints of one run directory.

    fingerprint: what a run that goes on must keep (`resume_fingerprint`).
    strict: a damaged checkpoint is refused, and none before it taken in its place.
    tick: told where this rank is, as often as it gets on: a large save may take longer than a hang.
    """

    def __init__(
        self,
        directory: RunDirectory,
        world: World,
        save_total_limit: int | None,
        fingerprint: dict[str, Any],
        strict: bool,
        tick: Callable[[str], None] = lambda where: None,
    ) -> None:
        self._directory, self._world, self._tick = directory, world, tick
        self._limit, self.fingerprint, self._strict = save_total_limit, fingerprint, strict
        self._num_bytes = 0  # of the newest checkpoint
        self._verified: int | None = None  # the step of the last one that was seen to be whole

    # -- save ---------------------------------------------------------------------------------

    def save(self, engine: Any, state: TrainerState) -> Saved:
        """Writes `checkpoint-<step>`, or gives up on all ranks and leaves older ones as they are.

        Collective. Raises LockLost, on all ranks, if the directory is another run's by now.
        """
        first, final = self._world.is_first, self._directory.path / f"checkpoint-{state.step}"
        tick = partial(self._tick, f"saving step {state.step}")
        temporary, why = self._agreed(self._begin(state.step) if first else (None, ""))
        if why:
            return Saved(None, why)
        written = self._world.gather(self._write(engine, temporary, tick))
        num_bytes, why = self._agreed(
            self._commit(temporary, final, state, written, tick) if first else (0, "")
        )
        if why:
            return Saved(None, why)
        self._num_bytes = num_bytes
        if first:
            self._collect(state)
        return Saved(final, num_bytes=num_bytes)

    def _agreed(self, outcome: tuple[Any, str]) -> tuple[Any, str]:
        """The first rank's, on all ranks."""
        value, why = self._world.broadcast(outcome)
        if why == LOST:
            raise LockLost(f"{self._directory.path}: {why}")
        return value, why

    def _begin(self, step: int) -> tuple[Path | None, str]:
        """The directory to write to, or why there is none."""
        place = self._directory.path
        try:
            if not self._directory.is_ours():
                return None, LOST
            retention.sweep(self._directory)
            free = shutil.disk_usage(place).free
            if free < self._num_bytes:
                free_gb, needed_gb = free / 1e9, self._num_bytes / 1e9
                return None, f"{free_gb:.2f} GB are free, the last one took {needed_gb:.2f} GB"
            temporary = place / retention.temporary_name(step)
            make_directory(temporary)
        except OSError as error:
            return None, f"cannot write to {place}: {error.strerror}"
        return temporary, ""

    def _write(self, engine: Any, temporary: Path, tick: Tick) -> _Written:
        """This rank's files, on the disk."""
        rank = self._world.rank
        files, why = engine.checkpoint_engine.save_shards(engine, temporary, tick)
        if not why:
            try:
                sync_directory(temporary / SHARDS)
                text = json.dumps({name: asdict(stamp) for name, stamp in files.items()}, indent=1)
                files[rank_file(rank)] = write_durably(
                    temporary / rank_file(rank), text + "\n", tick
                )
            except OSError as error:
                why = f"cannot write {rank_file(rank)}: {error.strerror}"
        return _Written(files, why and f"rank {rank}: {why}")

    def _commit(
        self,
        temporary: Path,
        final: Path,
        state: TrainerState,
        written: list[_Written],
        tick: Tick,
    ) -> tuple[int, str]:
        """The checkpoint's bytes, or why it was given up."""
        why = "; ".join(part.why for part in written if part.why)
        files = [part.files for part in written]
        manifest = Manifest(state.step, self.fingerprint, files)
        if not why:
            try:
                files[0][STATE] = write_durably(temporary / STATE, state.text, tick)
                write_durably(temporary / MANIFEST, manifest.text, tick)
                if not self._directory.is_ours():
                    return 0, LOST
                write_durably(temporary / COMMIT, commit_text(manifest.text.encode()), tick)
                sync_directory(temporary)
                if not self._directory.is_ours():
                    return 0, LOST
                retention.put_in_place(temporary, final)
            except OSError as error:
                why = f"rank 0: cannot commit: {error.strerror}"
        if why:
            with suppress(OSError):
                retention.discard(temporary)
        return manifest.num_bytes, why

    def _collect(self, state: TrainerState) -> None:
        """Moves `latest` and `best`, and removes what save_total_limit leaves no room for.

        The checkpoint stands: what fails here fails again, or not, at the next one.
        """
        with suppress(OSError):
            if not self._directory.is_ours():
                return
            latest = self._directory.path / "latest"  # for people: bigft goes by COMMIT
            hint = latest.with_name(".tmp-latest")
            hint.unlink(missing_ok=True)
            write_durably(hint, f"checkpoint-{state.step}\n")
            rename(hint, latest)
            retention.set_aside_beyond(self._directory, state.step)
            self.point_best_at(state.best_step)
            if self._limit is not None:
                keep = {state.step, state.best_step, self._verified}
                retention.prune(self._directory, self._limit, keep)

    def point_best_at(self, step: int | None) -> None:
        """Moves the link `best` there, if that step was saved and the disk lets it; only the first
        rank does it."""
        target = f"checkpoint-{step}"
        if self._world.is_first and (self._directory.path / target / COMMIT).is_file():
            with suppress(OSError):
                if self._directory.is_ours():
                    retention.point(self._directory.path / "best", target)

    # -- load ---------------------------------------------------------------------------------

    def verified(self, checkpoint: Path, fall_back: bool) -> tuple[Path, list[str]]:
        """The newest checkpoint, from this one backwards, that is whole; why others are not.

        Collective: each rank reads its share of the files and compares their hashes, and nothing
        is deserialised.
        Raises BadInput, on all ranks, if there is none; if not `fall_back`, or the store is
        strict, for the first that is not.
        """
        alone = self._strict or not fall_back
        refused: list[str] = []
        older = self._before(checkpoint) if self._world.is_first and not alone else []
        for candidate in self._world.broadcast([checkpoint, *older]):
            manifest, found = self._read(candidate)
            if manifest is not None and not found:
                self._verified = manifest.step if self._directory.holds(candidate) else None
                self._num_bytes = manifest.num_bytes
                return candidate, refused
            refused.append(f"{candidate} is not used: {'; '.join(found)}")
        fix = "name an older checkpoint-<step>" if alone else "start anew in another directory"
        raise BadInput([Problem("train.resume_from_checkpoint", text, fix) for text in refused])

    def load(self, engine: Any, checkpoint: Path) -> None:
        """Puts the weights and optimizer of a verified checkpoint into the engine. Collective.

        Raises BadInput if a shard holds more than tensors, or other parameters than are trained.
        """
        engine.checkpoint_engine.load_shards(engine, checkpoint)

    def _before(self, checkpoint: Path) -> list[Path]:
        """The older ones of the directory, newest first."""
        number = re.search(r"\d+$", checkpoint.name)
        newest = int(number[0]) if number else 0
        older = [path for step, path in self._directory.checkpoints() if step < newest]
        return older[::-1]

    def _read(self, checkpoint: Path) -> tuple[Manifest | None, list[str]]:
        """Its manifest, and what any rank found wrong. Collective."""
        rank, size = self._world.rank, self._world.size
        manifest, found = None, []
        try:
            manifest = Manifest.read(checkpoint)
            ranks = range(rank, len(manifest.files), size)
            tick = partial(self._tick, f"verifying {checkpoint.name}")
            found = manifest.problems(checkpoint, ranks, tick)
        except Damaged as damaged:
            found = [str(damaged)]
        everyones = [text for part in self._world.gather(found) for text in part]
        return manifest, list(dict.fromkeys(everyones))
