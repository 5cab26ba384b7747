"""`model/`: weights, config and tokenizer that plain transformers loads."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open

from bigft.runtime.process_group import World

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def export_model(
    engine: Any, tokenizer: PreTrainedTokenizerBase, directory: Path, world: World
) -> None:
    """Writes the engine's weights, in the dtype they compute in, and the tokenizer. Collective.

    The directory is replaced as a whole, after every tensor of the files was compared with the
    live one. Raises RuntimeError if one differs.
    """
    state_dict = _gathered(engine, world)
    if world.is_first:
        temporary = directory.with_name(f".tmp-{directory.name}")
        shutil.rmtree(temporary, ignore_errors=True)
        engine.module.save_pretrained(temporary, state_dict=dict(state_dict))  # which it empties
        tokenizer.save_pretrained(temporary)
        _compare(temporary, state_dict)
        trash = directory.with_name(f".trash-{directory.name}")
        shutil.rmtree(trash, ignore_errors=True)
        if directory.exists():
            os.replace(directory, trash)
        os.replace(temporary, directory)
        shutil.rmtree(trash, ignore_errors=True)
    world.barrier()


def _gathered(engine: Any, world: World) -> dict[str, torch.Tensor]:
    """The whole model's tensors on the first rank's CPU, by name; {} elsewhere.

    Under ZeRO-3 one parameter at a time is gathered, so no device holds the whole model.
    """
    import deepspeed

    is_sharded = engine.zero_optimization_stage() == 3
    copies: dict[int, torch.Tensor] = {}  # tied names share one tensor, here as in the model
    state_dict = {}
    for name, tensor in engine.module.state_dict(keep_vars=True).items():
        with deepspeed.zero.GatheredParameters([tensor], enabled=is_sharded):
            if world.is_first:
                if id(tensor) not in copies:
                    copies[id(tensor)] = tensor.detach().cpu().clone()
                state_dict[name] = copies[id(tensor)]
    return state_dict


def _compare(directory: Path, state_dict: dict[str, torch.Tensor]) -> None:
    stored = set()
    for path in sorted(directory.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                live = state_dict[name]
                if not torch.equal(file.get_tensor(name), live):
                    raise RuntimeError(f"{path}: {name} differs from the trained weights")
                stored.add(id(live))
    lost = [name for name, live in state_dict.items() if id(live) not in stored]
    if lost:
        raise RuntimeError(f"{directory} lacks {', '.join(lost)}")
