"""`model/`: what plain transformers or peft loads: weights or an adapter, config, processor."""

from __future__ import annotations

import copy
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open

from bigft.models.heads.swap import base_model
from bigft.models.sharded import stored_values
from bigft.runtime.failpoints import failpoint
from bigft.runtime.lock import LockLost
from bigft.runtime.process_group import World
from bigft.runtime.run_directory import RunDirectory
from bigft.training.checkpoint.files import sync_directory, sync_tree

if TYPE_CHECKING:
    from bigft.models.processors import Processor

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"


def export_model(engine: Any, processor: Processor, directory: RunDirectory, world: World) -> None:
    """Writes the engine's weights, in the dtype they compute in, and the processor, to `model/`.
    Collective.

    Of a model in peft's shell the adapter alone, in peft's layout; its config.json is that of the
    model it belongs on, with the labels.
    That is replaced as a whole, after every tensor of the files was compared with the live one.
    Raises RuntimeError if one differs; LockLost, on all ranks, if the run directory is another
    run's by now.
    """
    model, is_sharded = engine.module, engine.zero_optimization_stage() == 3
    if _is_adapter(model):
        state_dict = _adapter_state(model, is_sharded, world)
    else:
        state_dict = _gathered(tensors_to_store(model).items(), is_sharded, world)
    lost = ""
    if world.is_first:

        def write(place: Path) -> None:
            write_model(model, processor, state_dict, place)
            check_stored(place, model, state_dict)

        try:
            replace_directory(directory.model, write, directory.require_ours)
        except LockLost as error:
            lost = str(error)
    if lost := world.broadcast(lost):
        raise LockLost(lost)


def write_model(
    model: Any,
    processor: Processor,
    state_dict: Mapping[str, torch.Tensor],
    place: Path,
) -> None:
    """Writes to the new directory what `model/` holds: weights or an adapter, the configs of the
    model and of its generation, and the tokenizer with its template, or the image processor.

    state_dict: what is stored of the weights; {}: all is written but them, which a model without
        values can do as well.
    """
    for name in unsaved_generation_fields(model):
        setattr(base_model(model).generation_config, name, None)
    if _is_adapter(model):
        _write_adapter(model, state_dict, place)
    else:
        if only_says_tied(model):
            model.config.get_text_config().tie_word_embeddings = False
        model.save_pretrained(place, state_dict=dict(state_dict))  # which it empties
    processor.save_pretrained(place)


def only_says_tied(model: Any) -> bool:
    """Whether the config says that the head is the embeddings, and it is not: transformers loads a
    head that is stored beside them, and other programs, which go by the config, leave it out.

    Of encoder-decoders the word means more than that, and stays.
    """
    base = base_model(model)
    head, embeddings = base.get_output_embeddings(), base.get_input_embeddings()
    if head is None or base.config.is_encoder_decoder:
        return False
    says = bool(base.config.get_text_config().tie_word_embeddings)
    return says and getattr(head, "weight", None) is not embeddings.weight


def unsaved_generation_fields(model: Any) -> dict[str, Any]:
    """Fields of the model's generation config, with their values, that do nothing beside the others
    (a temperature without sampling): transformers loads them, but refuses to save them."""
    base = base_model(model)
    if not base.can_generate():
        return {}
    try:
        base.generation_config.validate(strict=True)
    except ValueError as error:
        names = re.findall(r"^- `(\w+)`:", str(error), re.MULTILINE)
        return {name: getattr(base.generation_config, name) for name in names}
    return {}


def tensors_to_store(model: Any) -> dict[str, torch.Tensor]:
    """The tensors of a whole model that are saved, by name; one that is tied under each of its
    names, the same object."""
    tensors: dict[str, torch.Tensor] = model.state_dict(keep_vars=True)
    for name in model._keys_to_ignore_on_save or ():  # computed anew when the model is loaded
        tensors.pop(name, None)
    return tensors


def _is_adapter(model: Any) -> bool:
    return hasattr(model, "peft_config")


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


def _write_adapter(model: Any, state_dict: Mapping[str, torch.Tensor], place: Path) -> None:
    """As peft's save_pretrained does, which would ask a prompt's encoder on this rank alone."""
    from safetensors.torch import save_file

    place.mkdir()
    tensors = {name: tensor.contiguous() for name, tensor in state_dict.items()}
    save_file(tensors, place / ADAPTER_WEIGHTS, {"format": "pt"})
    adapter = copy.deepcopy(model.peft_config[model.active_adapter])
    adapter.inference_mode = True
    adapter.save_pretrained(place)
    base = base_model(model)
    config = copy.deepcopy(base.config)
    config.architectures = [type(base).__name__]  # as save_pretrained of a whole model sets it
    if hasattr(config, "quantization_config"):
        del config.quantization_config  # of how the base was loaded, not of what lies here
    config.save_pretrained(place)
    if base.can_generate():
        base.generation_config.save_pretrained(place)


def check_stored(directory: Path, model: Any, state_dict: Mapping[str, torch.Tensor]) -> None:
    """Raises RuntimeError if a tensor that the directory's files give differs from the live one, or
    if one is missing; one tensor under two names is stored once.

    model: of the state dict; a whole model's files are read as loading reads them.
    """
    files = sorted(directory.glob("*.safetensors"))
    read = _tensors(files) if _is_adapter(model) else stored_values(model, state_dict, files)
    stored = set()
    for name, tensor in read:
        live = state_dict[name]
        if not torch.equal(tensor, live) and not _are_equal_but_for_nan(tensor, live):
            raise RuntimeError(f"{directory}: {name} differs from the trained weights")
        stored.add(id(live))
    lost = [name for name, live in state_dict.items() if id(live) not in stored]
    if lost:
        raise RuntimeError(f"{directory} lacks {', '.join(lost)}")


def _are_equal_but_for_nan(tensor: torch.Tensor, live: torch.Tensor) -> bool:
    """NaN is stored as it is, too, and equals nothing."""
    if tensor.shape != live.shape or tensor.dtype != live.dtype:
        return False
    return bool(((tensor == live) | (tensor.isnan() & live.isnan())).all())


def _tensors(files: Iterable[Path]) -> Iterator[tuple[str, torch.Tensor]]:
    for path in files:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                yield name, file.get_tensor(name)
