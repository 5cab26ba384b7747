"""Which parameters of a model are its head, which layer they belong to, and which are trained."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from bigft.models.heads.swap import base_model


def body(model: Any) -> nn.Module:
    """The pretrained body: what several heads share; the model itself if it names none."""
    base = base_model(model)
    found: nn.Module = getattr(base, base.base_model_prefix, base)
    return found


def head_modules(model: Any) -> list[str]:
    """Names of the modules beside the body that hold parameters (`classifier`), in a plain model.

    A language model has none: the layer that makes its logits is pretrained with its body.
    """
    base = base_model(model)
    if base.get_output_embeddings() is not None:
        return []
    inner = body(model)
    children = base.named_children() if inner is not base else ()
    return [name for name, child in children if child is not inner and [*child.parameters()]]


def head_names(model: Any) -> set[str]:
    """The parameters of the new head, with and without peft's shell, frozen ones too.

    Empty for a language model, whose head is pretrained.
    """
    base = base_model(model)
    parts = [base.get_submodule(name) for name in head_modules(model)]
    of_head = {id(parameter) for part in parts for parameter in part.parameters()}
    return {name for name, parameter in model.named_parameters() if id(parameter) in of_head}


def layer_numbers(model: Any) -> dict[str, int]:
    """Of every parameter by name: 0 below the first layer, i + 1 in layer i, and above the last
    one the next number: final norm, head, and what an adapter puts beside the model.

    The layers of an encoder come before those of its decoder; embeddings of both are 0.
    """
    inner = body(model)
    numbers: dict[int, int] = {}
    depth, parent = 0, ""
    start = 0
    for name, layers in _layer_lists(inner):
        if depth and name.rpartition(".")[0] != parent:
            start = depth  # the next stack stands on this one; lists side by side are one stack
        parent = name.rpartition(".")[0]
        for index, layer in enumerate(layers):
            numbers |= {id(parameter): start + index + 1 for parameter in layer.parameters()}
        depth = max(depth, start + len(layers))
    below = _below_the_layers(inner, set(numbers))
    return {
        name: numbers.get(id(parameter), 0 if id(parameter) in below else depth + 1)
        for name, parameter in model.named_parameters()
    }


def _layer_lists(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.ModuleList]]:
    """The outermost lists of modules, in the order in which the model has them."""
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if isinstance(child, nn.ModuleList):
            yield path, child
        else:
            yield from _layer_lists(child, f"{path}.")


def _below_the_layers(inner: nn.Module, in_layers: set[int]) -> set[int]:
    """Parameters of embeddings, and of all else that comes before the first layer."""
    below: set[int] = set()
    for parameter in inner.parameters():
        if id(parameter) in in_layers:
            break
        below.add(id(parameter))
    for module in inner.modules():
        if isinstance(module, nn.Embedding):
            below |= {id(parameter) for parameter in module.parameters()} - in_layers
    return below


def trained_table(model: Any) -> str:
    """What is trained: parameters by the pattern of their module (layer numbers are *), and the
    totals. Counts of parameters that are sharded or in 4 bits are those of the whole numbers."""
    trained: dict[str, int] = {}
    total = 0
    for name, parameter in model.named_parameters():
        total += num_values(parameter)
        if parameter.requires_grad:
            pattern = re.sub(r"\.\d+(?=\.|$)", ".*", name.rpartition(".")[0] or name)
            trained[pattern] = trained.get(pattern, 0) + num_values(parameter)
    rows = [("trained", "parameters", "share")]
    rows += [(name, f"{size:,}", f"{size / total:.3%}") for name, size in trained.items()]
    all_trained = sum(trained.values())
    rows.append(("all of it", f"{all_trained:,}", f"{all_trained / total:.3%}"))
    rows.append(("the model", f"{total:,}", ""))
    first, second, third = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = [f"{name:{first}}  {size:>{second}}  {share:>{third}}" for name, size, share in rows]
    return "\n".join(line.rstrip() for line in lines)


def frozen_digest(model: Any, rank: int) -> str:
    """40 hex digits that tell the rank's frozen weights from others of the same shapes, by up to
    64 numbers of each; "" where all are trained. Syncs the host."""
    digest, any_frozen = hashlib.sha1(usedforsecurity=False), False
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            any_frozen = True
            values = _own_part(parameter, rank)
            sample = values[:: max(1, values.numel() // 64)][:64].cpu().contiguous()
            digest.update(name.encode())
            digest.update(sample.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest() if any_frozen else ""


def nonfinite_weights(model: Any, rank: int) -> list[str]:
    """The parameters that hold NaN or an infinity, under ZeRO-3 in the rank's own part. Syncs the
    host once per parameter: for when something is wrong already."""
    parts = ((name, _own_part(each, rank)) for name, each in model.named_parameters())
    return [name for name, part in parts if part.is_floating_point() and not part.isfinite().all()]


def _own_part(parameter: Any, rank: int) -> torch.Tensor:
    """All values; under ZeRO-3 those that the rank holds, but for the padding behind the last."""
    if not hasattr(parameter, "ds_tensor"):
        whole: torch.Tensor = parameter.detach().flatten()
        return whole
    part: torch.Tensor = parameter.ds_tensor.detach().flatten()
    return part[: max(0, parameter.ds_numel - rank * part.numel())]


def num_values(parameter: Any) -> int:
    """Of the whole parameter: ZeRO-3 keeps its number apart, two 4-bit numbers share a byte."""
    count = int(getattr(parameter, "ds_numel", parameter.numel()))
    is_4bit = getattr(parameter, "quant_state", None) is not None
    return 2 * count * parameter.element_size() if is_4bit else count
