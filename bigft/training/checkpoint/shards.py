"""DeepSpeed's checkpoint files: hashed as they are written, read without unpickling strangers."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from pickle import UnpicklingError
from typing import IO, Any, cast

import torch
from deepspeed.runtime.checkpoint_engine import CheckpointCommitInfo
from deepspeed.runtime.checkpoint_engine.checkpoint_engine import CheckpointEngine
from torch import nn

from bigft.config.errors import BadInput, Problem
from bigft.runtime.signals import raise_if_interrupted
from bigft.training.checkpoint.files import HashingFile, Stamp, Tick, make_directory, no_tick
from bigft.training.checkpoint.manifest import SHARDS


class SafeCheckpointEngine(CheckpointEngine):
    """Writes with hashes and fsync; loads with weights_only=True.

    What cannot be written is remembered, not raised: inside save_checkpoint the other ranks wait.
    A shard that is damaged or holds any foreign class raises BadInput and runs nothing.
    """

    def __init__(self, config: Any = None) -> None:
        super().__init__(config)
        self.name = "bigft"
        self._written: dict[Path, Stamp] = {}
        self._why = ""
        self._tick: Tick = no_tick

    def save_shards(
        self, engine: Any, checkpoint: Path, tick: Tick
    ) -> tuple[dict[str, Stamp], str]:
        """What this rank wrote under `checkpoint`/ds, by name; and why not all of it, or "".

        Frozen parameters are not in it. Collective: all ranks return, whatever fails on one.
        tick: called as often as the disk takes something.
        """
        self._written, self._why, self._tick = {}, "", tick
        with _as_bigft_saves(engine):
            engine.save_checkpoint(
                str(checkpoint), tag=SHARDS, save_latest=False, exclude_frozen_parameters=True
            )
        files = {str(path.relative_to(checkpoint)): made for path, made in self._written.items()}
        return files, self._why

    def load_shards(self, engine: Any, checkpoint: Path) -> None:
        """Puts weights and optimizer into the engine. Collective.

        Raises BadInput if a shard is missing, damaged, holds more than tensors or other parameters
        than are trained.
        """
        if not any((checkpoint / SHARDS).glob("*_model_states.pt")):
            raise unusable(checkpoint / SHARDS, "no DeepSpeed checkpoint in it")

        def put_into(src: dict[str, Any], dst: Any) -> None:
            if _shapes(src) != _shapes(trained_state(dst)):
                what = f"{checkpoint} holds other parameters than this config trains"
                fix = "keep the section adapt of the run that continues"
                raise BadInput(Problem("train.resume_from_checkpoint", what, fix))
            dst.load_state_dict(src, strict=False)

        engine.load_checkpoint(str(checkpoint), tag=SHARDS, custom_load_fn=put_into)

    # -- what DeepSpeed calls -----------------------------------------------------------------

    def create(self, info: CheckpointCommitInfo) -> None:
        pass

    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        directory = Path(path)
        if not directory.is_dir():
            try:
                make_directory(directory)
            except FileExistsError:
                pass  # another rank was first
            except OSError as error:
                self._remember(directory, error)

    def save(self, state_dict: Any, path: str) -> None:
        shard, file = Path(path), None
        try:
            with without_crc32(), HashingFile(shard, self._tick) as file:
                torch.save(_plain(state_dict), cast(IO[bytes], file))  # it only writes
            self._written[shard] = file.stamp
        except Exception as error:
            raise_if_interrupted()
            # Out of C++ the disk's own error comes as a RuntimeError that does not name it.
            self._remember(shard, (file and file.error) or error)

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

    def _remember(self, path: Path, error: Exception) -> None:
        why = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
        self._why = self._why or f"cannot write {path.name}: {why}"


def allowed_classes() -> list[Any]:
    """DeepSpeed's own classes that its shards hold beside tensors; nothing else is unpickled."""
    from deepspeed.runtime.fp16.loss_scaler import DynamicLossScaler, LossScaler
    from deepspeed.utils.tensor_fragment import fragment_address

    return [DynamicLossScaler, LossScaler, fragment_address]


def _plain(state: Any) -> Any:
    """The state with values in the place of members of enumerations: Python 3.11.3 and older
    pickle those as calls of getattr, which may not be unpickled."""
    if type(state) in (dict, OrderedDict):
        return type(state)((key, _plain(value)) for key, value in state.items())
    if type(state) in (list, tuple):
        return type(state)(map(_plain, state))
    return state.value if isinstance(state, Enum) else state


def unusable(path: str | Path, why: str) -> BadInput:
    fix = "name an older checkpoint-<step>"
    return BadInput(Problem("train.resume_from_checkpoint", f"{path}: {why}", fix))


def trained_state(module: nn.Module) -> dict[str, torch.Tensor]:
    """Of the module's state: trained parameters by all their names, and buffers.

    What is left out, frozen weights and how they are quantised, is the pretrained model's.
    """
    kept = {name for name, _ in module.named_buffers(remove_duplicate=False)}
    parameters = module.named_parameters(remove_duplicate=False)
    kept |= {name for name, parameter in parameters if parameter.requires_grad}
    return {name: value for name, value in module.state_dict().items() if name in kept}


@contextmanager
def without_crc32() -> Iterator[None]:
    """torch.save computes a CRC-32 of every tensor, which torch.load never looks at: the hash takes
    its place, and its time."""
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        yield
    finally:
        torch.serialization.set_crc32_options(before)


@contextmanager
def _as_bigft_saves(engine: Any) -> Iterator[None]:
    """In the block the engine saves `trained_state`: its own option forgets the second names of
    tied weights, and what belongs to 4-bit ones. And it leaves out its scripts, which are no part
    of a checkpoint, and whose copying could fail on the first rank while the others wait."""
    engine.module_state_dict = lambda *args, **kwargs: trained_state(engine.module)
    engine._copy_recovery_script = lambda directory: None
    try:
        yield
    finally:
        del engine.module_state_dict, engine._copy_recovery_script


def _shapes(state: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
