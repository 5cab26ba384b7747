"""`model/`: what plain transformers or peft loads: weights or an adapter, config and tokenizer."""

from __future__ import annotations

import copy
import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open

from bigft.models.heads.swap import base_model
from bigft.runtime.failpoints import failpoint
from bigft.runtime.lock import LockLost
from bigft.runtime.process_group import World
from bigft.runtime.run_directory import RunDirectory
from bigft.training.checkpoint.files import sync_directory, sync_tree

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


def export_model(
    engine: Any, tokenizer: PreTrainedTokenizerBase, directory: RunDirectory, world: World
) -> None:
    """Writes the engine's weights, in the dtype they compute in, and the tokenizer, to `model/`.
    Collective.

    Of a model in peft's shell the adapter alone, in peft's layout; its config.json is that of the
    model it belongs on, with the labels.
    That is replaced as a whole, after every tensor of the files was compared with the live one.
    Raises RuntimeError if one differs; LockLost, on all ranks, if the run directory is another
    run's by now.
    """
    model, is_sharded = engine.module, engine.zero_optimization_stage() == 3
    is_adapter = hasattr(model, "peft_config")
    if is_adapter:
        state_dict = _adapter_state(model, is_sharded, world)
    else:
        state_dict = _gathered(model.state_dict(keep_vars=True).items(), is_sharded, world)
        for name in model._keys_to_ignore_on_save or ():  # computed anew when the model is loaded
            state_dict.pop(name, None)
    lost = ""
    if world.is_first:

        def write(place: Path) -> None:
            if is_adapter:
                _write_adapter(model, state_dict, place)
            else:
                model.save_pretrained(place, state_dict=dict(state_dict))  # which it empties
            tokenizer.save_pretrained(place)
            check_stored(place, state_dict)

        try:
            replace_directory(directory.model, write, directory.require_ours)
        except LockLost as error:
            lost = str(error)
    if lost := world.broadcast(lost):
        raise LockLost(lost)


def replace_directory(
    directory: Path, write: Callable[[Path], None], check: Callable[[], None] = lambda: None
) -> None:
    """The directory with what `write` puts into it, on the disk: all of it, or as it was before.

    check: called right before the new one takes its place; may raise.
    """
    temporary = directory.with_name(f".tmp-{directory.name}")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        write(temporary)
        failpoint("export.sync")
        sync_tree(temporary)
        check()
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    trash = directory.with_name(f".trash-{directory.name}")
    shutil.rmtree(trash, ignore_errors=True)
    if directory.exists():
        os.replace(directory, trash)
    os.replace(temporary, directory)
    sync_directory(directory.parent)
    shutil.rmtree(trash, ignore_errors=True)


def _gathered(
    tensors: Iterable[tuple[str, torch.Tensor]], is_sharded: bool, world: World
) -> dict[str, torch.Tensor]:
    """Whole tensors on the first rank's CPU, by name; {} elsewhere.

    Under ZeRO-3 one parameter at a time is gathered, so no device holds the whole model.
    """
    import deepspeed

    copies: dict[int, torch.Tensor] = {}  # tied names share one tensor, here as in the model
    state_dict = {}
    for name, tensor in tensors:
        with deepspeed.zero.GatheredParameters([tensor], enabled=is_sharded):
            if world.is_first:
                if id(tensor) not in copies:
                    copies[id(tensor)] = tensor.detach().cpu().clone()
                state_dict[name] = copies[id(tensor)]
    return state_dict


def _adapter_state(model: Any, is_sharded: bool, world: World) -> dict[str, torch.Tensor]:
    """The adapter's tensors by peft's names on the first rank's CPU; {} elsewhere.

    A prompt's vectors are what its encoder answers. Under ZeRO-3 that is collective: every rank
    asks it, and peft, which asks it again on the first rank alone, gets the same answer.
    """
    from peft import get_peft_model_state_dict

    trained = ((name, p) for name, p in model.named_parameters() if p.requires_grad)
    gathered = _gathered(trained, is_sharded, world)
    is_prompt = model.active_peft_config.is_prompt_learning
    vectors = model.get_prompt_embedding_to_save(model.active_adapter) if is_prompt else None
    if not world.is_first:
        return {}
    model.get_prompt_embedding_to_save = lambda adapter_name: vectors
    try:
        state: dict[str, torch.Tensor] = get_peft_model_state_dict(
            model, state_dict=gathered, save_embedding_layers=False
        )
    finally:
        del model.get_prompt_embedding_to_save
    return state


def _write_adapter(model: Any, state_dict: dict[str, torch.Tensor], place: Path) -> None:
    """As peft's save_pretrained does, which would ask a prompt's encoder on this rank alone."""
    from safetensors.torch import save_file

    place.mkdir()
    tensors = {name: tensor.contiguous() for name, tensor in state_dict.items()}
    save_file(tensors, place / ADAPTER_WEIGHTS, {"format": "pt"})
    adapter = copy.deepcopy(model.peft_config[model.active_adapter])
    adapter.inference_mode = True
    adapter.save_pretrained(place)
    config = copy.deepcopy(base_model(model).config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # of how the base was loaded, not of what lies here
    config.save_pretrained(place)


def check_stored(directory: Path, state_dict: Mapping[str, torch.Tensor]) -> None:
    """Raises RuntimeError if a tensor in the directory's files differs from the live one, or if
    one is missing; one tensor under two names is stored once."""
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
