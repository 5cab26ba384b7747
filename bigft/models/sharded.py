"""A model that is born sharded: under ZeRO-3 no rank ever holds the whole of it.

The model is built without values, on the meta device. Then one parameter after the other gets
memory, this rank's part of its values, and is partitioned by DeepSpeed: a rank holds its share and
one parameter at a time. Names, ties and conversions are transformers' own.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import torch
import torch.distributed as dist
from torch import nn

from bigft.config.errors import BadInput, Problem
from bigft.config.sections import ModelConfig
from bigft.models.files import readers, stored_tensors, weight_files
from bigft.models.heads.labels import label_parameters, take_rows
from bigft.models.load import load_model
from bigft.models.weights import fit_of

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

INITIALISED = "_is_hf_initialized"  # transformers' mark: its initialisers pass such tensors over


def load_sharded(
    model: ModelConfig,
    config: PretrainedConfig,
    auto_class: str,
    ds_config: dict[str, Any],
    dtype: str = "float32",
) -> PreTrainedModel:
    """What `load_model` gives, with every parameter partitioned over the ranks. Collective.

    Its values are those of `load_model`, in the dtype that the engine computes in: the files', a
    new head's and, with `from_scratch`, all drawn ones, where every rank's torch is seeded alike.
    They lie where ds_config puts them; buffers are whole, on the CPU. Adapters and heads go on
    top of it, then `deepspeed.initialize`. A rank's memory peaks at its share and the largest
    parameter (docs/memory.md).

    ds_config: of `deepspeed_config`, stage 3.  dtype: in which a new head is drawn.
    Raises BadInput where `load_model` does, and for a from_scratch model with weights that
    transformers' initialisers leave out.
    """
    partition = _Partition(ds_config)
    if model.from_scratch:
        with _drawn() as parts:
            skeleton = load_model(model, config, auto_class, device="meta")
        _check_drawn(skeleton, parts)
        _initialise(skeleton, set(parts))
        for parameter in list(skeleton.parameters()):
            partition(parameter, parts.pop(parameter))
        return skeleton
    skeleton = load_model(model, config, auto_class, dtype=dtype, device="meta")
    rows = fit_of(skeleton).rows
    by_row = label_parameters(skeleton) if rows is not None else ()
    stored = _Stored(skeleton, skeleton.state_dict(), weight_files(model), {*by_row})
    stored.tie_equals()
    present = stored.parameters()
    _initialise(skeleton, present)
    if rows is not None:
        take_rows(skeleton, rows, readers(skeleton, model))
    for parameter in list(skeleton.parameters()):  # in one order on all ranks: DeepSpeed counts
        if parameter not in present:
            partition(parameter, _own(parameter.detach()))
    read = set()
    for name, value in stored.values():
        target = skeleton.get_parameter_or_buffer(name)
        if not isinstance(target, nn.Parameter):
            target.copy_(value)
        elif target not in read:  # or it is the second name of a tie
            if target not in present:
                raise RuntimeError(f"{name} is stored, but was taken for new")
            partition(target, _own(value))
            read.add(target)
    if read != present:
        raise RuntimeError(f"{len(present - read)} stored weights were not read")
    return skeleton


def stored_values(
    model: PreTrainedModel, state_dict: Mapping[str, torch.Tensor], files: Iterable[Path]
) -> Iterator[tuple[str, torch.Tensor]]:
    """Names and values of files that were saved from the state dict, as loading them gives: what
    a format stores otherwise than the model holds it, as experts of a mixture, is put together.

    state_dict: whole tensors; where a file's has another shape, it has none to give.
    """
    return _Stored(model, state_dict, files).values()


class _Scratch:
    """Memory for one whole tensor at a time, always the same: pieces of many sizes, come and gone
    between the shares that stay, would leave holes of half a share. What is not written to costs
    nothing."""

    def __init__(self, device: torch.device | str) -> None:
        self.bytes = torch.empty(0, dtype=torch.uint8, device=device)

    def __call__(self, shape: torch.Size, dtype: torch.dtype) -> torch.Tensor:
        size = shape.numel() * dtype.itemsize
        if size > self.bytes.numel():
            self.bytes = self.bytes.new_empty(size)
        return self.bytes[:size].view(dtype).view(shape)


def _own(tensor: torch.Tensor) -> torch.Tensor:
    """The elements of a contiguous tensor that DeepSpeed keeps on this rank: a flat view."""
    size = -(-tensor.numel() // dist.get_world_size())
    return tensor.view(-1)[dist.get_rank() * size :][:size]


class _Partition:
    """Partitions one parameter after the other as `deepspeed.zero.Init` does, but for the broadcast
    of whole parameters from rank 0: every rank knows its part."""

    def __init__(self, ds_config: dict[str, Any]) -> None:
        import deepspeed

        self.context: Any = deepspeed.zero.Init(nn.Module(), config_dict_or_path=ds_config)
        self.dtype: torch.dtype = self.context.dtype
        self.scratch = _Scratch(self.context.local_device)

    def __call__(self, parameter: nn.Parameter, own: torch.Tensor) -> None:
        """The parameter object stays, and with it ties; only `own` of the whole is ever touched."""
        whole = self.scratch(parameter.shape, self.dtype)
        _own(whole).copy_(own)
        new = nn.Parameter(whole, requires_grad=parameter.requires_grad)
        torch.utils.swap_tensors(parameter, new)
        self.context._convert_to_deepspeed_param(parameter)
        parameter.partition()  # type: ignore[attr-defined]


def _initialise(skeleton: PreTrainedModel, present: Set[nn.Parameter]) -> None:
    """Gives buffers and the parameters that are not `present` memory and transformers' values.

    All ranks draw the same, in the order in which `from_pretrained` does.
    """
    for parameter in skeleton.parameters():
        if parameter not in present:
            new = nn.Parameter(torch.empty_like(parameter, device="cpu"))
            torch.utils.swap_tensors(parameter, new)
        setattr(parameter, INITIALISED, parameter in present)
    for module in skeleton.modules():
        setattr(module, INITIALISED, False)
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = torch.empty_like(buffer, device="cpu")
    skeleton.initialize_weights()


# -- weights from files -------------------------------------------------------------------------


class _Stored:
    """What safetensors files hold, by the names of a model's parameters and buffers.

    known: the model's state dict; of its tensors only the shapes are looked at.
    apart: names that are not read here.
    """

    def __init__(
        self,
        skeleton: PreTrainedModel,
        known: Mapping[str, torch.Tensor],
        files: Iterable[str | Path],
        apart: Set[str] = frozenset(),
    ) -> None:
        from transformers.core_model_loading import WeightRenaming

        self.skeleton = skeleton
        self.transforms: dict[str, Any] = {}  # by the (first) name that one gives a value
        for each in stored_tensors(skeleton, known, files):
            transform: Any
            if each.name in apart:
                continue
            if each.converter is not None:
                transform = copy.deepcopy(each.converter)
            elif each.shape == list(known[each.name].shape):
                transform = WeightRenaming(each.source, each.name)
            else:  # a head for other labels
                continue
            self.transforms.setdefault(each.name, transform).add_tensor(
                each.name, each.source, each.pattern or each.source, each.read
            )

    def parameters(self) -> set[nn.Parameter]:
        """The skeleton's parameters that `values` has."""
        given = dict(self.skeleton.named_parameters(remove_duplicate=False))
        names: set[str] = set()
        for name, transform in self.transforms.items():
            first, *_ = patterns = transform.target_patterns
            names.update(name.replace(first, pattern) for pattern in patterns)
        return {given[name] for name in names & given.keys()}

    def values(self) -> Iterator[tuple[str, torch.Tensor]]:
        """Names and values, contiguous. Plain ones are maps of the file: only what is used of them
        is read."""
        for name in list(self.transforms):
            transform = self.transforms.pop(name)
            converted = transform.convert(name, model=self.skeleton, config=self.skeleton.config)
            for target, value in converted.items():
                tensor = value[0] if isinstance(value, list) else value
                yield target, tensor.contiguous()

    def tie_equals(self) -> None:
        """Ties what the config ties, but for pairs that are both stored and differ."""
        tied = self.skeleton.all_tied_weights_keys
        for target, source in list(tied.items()):
            pair = [self.transforms.get(name) for name in (target, source)]
            if all(pair) and not torch.equal(*(_peek(transform) for transform in pair)):
                del tied[target]
        self.skeleton.tie_weights(recompute_mapping=False)


def _peek(transform: Any) -> torch.Tensor:
    """The one stored tensor of a transform that only renames."""
    ((read,),) = transform.collected_tensors.values()
    return read()


# -- weights from a seed ------------------------------------------------------------------------


@contextmanager
def _drawn() -> Iterator[dict[nn.Parameter, torch.Tensor]]:
    """Models that are built on the meta device in this context draw the random numbers that they
    would draw on the CPU, one whole tensor at a time. Yields this rank's part of each parameter."""
    from transformers import PreTrainedModel, initialization

    parts: dict[Any, torch.Tensor] = {}
    scratch = _Scratch("cpu")

    def drawing(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def draw(tensor: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
            if not tensor.is_meta:
                return function(tensor, *args, **kwargs)
            owner = tensor if tensor._base is None else tensor._base  # of the pad token's row
            whole = scratch(owner.shape, owner.dtype)
            own = _own(whole)
            if owner in parts:
                own.copy_(parts[owner])
            elif tensor is not owner:  # a part of what is not drawn: see _check_drawn
                return tensor
            place = tensor.shape, tensor.stride(), tensor.storage_offset()
            function(whole.as_strided(*place), *args, **kwargs)
            parts.setdefault(owner, torch.empty_like(own)).copy_(own)
            return tensor

        return draw

    init_weights = PreTrainedModel.init_weights

    def on_cpu(model: PreTrainedModel) -> None:
        with torch.device("cpu"):  # transformers leaves it out on the meta device
            init_weights(model)

    functions: dict[str, Any] = initialization.TORCH_INIT_FUNCTIONS
    copy_: Any = initialization.copy_
    with (
        initialization.guard_torch_init_functions(),  # torch's own calls go through the table too
        mock.patch.dict(functions, {name: drawing(each) for name, each in functions.items()}),
        mock.patch.object(initialization, "copy_", drawing(copy_)),
        mock.patch.object(PreTrainedModel, "init_weights", on_cpu),
    ):
        yield parts


def _check_drawn(skeleton: PreTrainedModel, parts: dict[nn.Parameter, torch.Tensor]) -> None:
    left_out = [name for name, each in skeleton.named_parameters() if each not in parts]
    if left_out:
        raise BadInput(
            Problem(
                "model.from_scratch",
                f"transformers does not initialise {', '.join(left_out[:3])} of this architecture",
                "set parallel.zero_stage to 2, or give weights",
            )
        )
