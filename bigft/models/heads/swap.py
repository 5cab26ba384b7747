"""How a head takes the place of a model's: for one forward, its linear layer answers otherwise.

Nothing of the model changes but `model.forward`, on the instance: modules, parameters, their names
and ties stay, so a checkpoint remains transformers' own.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

import torch
from torch import nn

from bigft.ops import LinearCrossEntropy, TokenClassification

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Result = TypeVar("Result", LinearCrossEntropy, TokenClassification)


class CannotFuse(Exception):
    """This model, or what is asked of it, cannot have the fused head; str() is the reason."""


class Head:
    """Stands in the place of a model's forward, and calls it.

    A subclass defines `__call__`: labels, scale=1.0 and the model's inputs to an answer with `loss`
    (scale times the sum over targets, to call backward on), `loss_sum` (detached), and what its
    task reads. The loss is computed inside of forward, where ZeRO-3's hooks have weights at hand.
    """

    __call__: Callable[..., Any]

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = base_model(model)
        assert not isinstance(self.model.forward, Head), "the model has a head already"
        self.stock_forward: Callable[..., Any] = self.model.forward
        # generate() asks which inputs the forward knows, and leaves out what it does not.
        self.__signature__ = inspect.signature(self.stock_forward)
        self.model.forward = self  # on the instance: the class is shared

    @property
    def trains(self) -> bool:
        return self.model.training and torch.is_grad_enabled()


class FusedHead(Head):
    """A head whose last layer and loss an operator may compute in one.

    fused: whether the operator answers instead of the model's own last layer.
    linear: the layer whose output are the logits. Of adapters attached later, the active one.
    operator: of bigft.ops, which answers where the head is fused.
    """

    operator: ClassVar[str]

    def __init__(self, model: PreTrainedModel, fused: bool) -> None:
        super().__init__(model)
        self.fused = fused

    @property
    def linear(self) -> nn.Linear:
        raise NotImplementedError

    @property
    def entrance(self) -> nn.Module:
        """The first module of what the operator does in one."""
        return self.linear

    def answer(
        self, operator: Callable[[torch.Tensor], Result], inputs: dict[str, Any]
    ) -> tuple[torch.Tensor, Result, Any]:
        """The loss to call backward on, what `operator` made of the linear layer's input, and the
        model's output.

        The layer is called as the module it is, so that ZeRO-3's hooks gather its weight; the loss
        is taken behind them, so that they are on its graph. In the output it stands in the place of
        the logits.
        """
        results: list[Result] = []
        losses: list[torch.Tensor] = []

        def forward(hidden_BTH: torch.Tensor) -> torch.Tensor | None:
            results.append(operator(hidden_BTH))
            return results[-1].loss

        linear = self.linear
        hook = linear.register_forward_hook(lambda module, args, output: losses.append(output))
        try:
            with forward_as(linear, forward):
                output = self.stock_forward(**inputs)
        finally:
            hook.remove()
        if len(losses) != 1:
            raise CannotFuse(f"the model calls its last layer {len(losses)} times")
        return losses[0], results[0], output


def base_model(model: Any) -> Any:
    """The model of transformers itself, without the shell that peft put around it."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def head_of(model: nn.Module) -> Head:
    """The head that was attached to the model."""
    head = base_model(model).forward
    assert isinstance(head, Head)
    return head


def plain_linear(module: Any) -> nn.Linear:
    """The layer itself; of peft's modules_to_save the copy that is trained.

    Raises CannotFuse if it is anything but an nn.Linear: an operator knows no other.
    """
    if hasattr(module, "modules_to_save"):
        module = module.modules_to_save[module.active_adapters[0]]
    if type(module) is nn.Linear:
        return module
    kind = f"{type(module).__module__.partition('.')[0]}'s {type(module).__name__}"
    raise CannotFuse(
        "the model has no layer that makes logits"
        if module is None
        else f"the layer that makes the logits is {kind}, not an nn.Linear (an adapter on it?)"
    )


@contextmanager
def trying_out(model: nn.Module) -> Iterator[None]:
    """In the block the model with an attached head trains, but for dropout; afterwards modes and
    random state are as before."""
    modes = {module: module.training for module in model.modules()}
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    try:
        with torch.random.fork_rng(devices), torch.enable_grad():
            model.eval()
            head_of(model).model.training = True  # the head trains, the layers below it do not
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def forward_as(module: nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """In the block, calling the module runs its hooks as ever and `forward` between them."""
    own = vars(module).get("forward")  # another's change to this instance, if there is one
    module.forward = forward
    try:
        yield
    finally:
        if own is None:
            del module.forward
        else:
            module.forward = own
